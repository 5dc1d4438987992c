"""An ECG of any origin as the encoder takes it: array or file, any leads, rate and length."""

from collections.abc import Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import resample_poly

MODEL_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MODEL_RATE_HZ, MODEL_SAMPLES = 250, 2500
WFDB_SUFFIXES = (".hea", ".dat", ".mat")


class EcgInputError(ValueError):
    """An ECG that cannot be read as leads x samples of a voltage."""


def prepare_ecg(
    signal: Any, leads: Sequence[str] | None = None, rate_hz: float = 500.0
) -> np.ndarray:
    """One ECG as the encoder takes it: leads I, II, V1-V6, 10 s at 250 Hz, z-scored per lead.

    Each lead has mean 0 and standard deviation 1 over what is kept of it, so the unit of ``signal``
    does not matter and neither baseline nor gain reaches the model (ECG-JEPA itself was trained on
    millivolts; the released QoQ-Med z-scores). A longer record is cropped to its first 10 s. A
    shorter one is padded at its end with zeros, and a time patch of the encoder (0.2 s) that is
    zero in every lead is masked there: padding reaches no token.

    Args:
        signal: leads x samples, in millivolts or any other linear unit.
        leads: one name per row, any case; by default the standard 12 or the model's 8 in order.
        rate_hz: samples a second of ``signal``, taken to a tenth.

    Returns:
        float32, 8 x 2500.

    Raises:
        EcgInputError: wrong shape, missing or constant leads, NaN/infinite samples, or no real
            rate.
    """
    values = _checked(signal)
    if not 1 <= rate_hz < np.inf:
        raise EcgInputError(
            f"The ECG's sampling rate must be 1 sample a second or more, got {rate_hz!r}."
        )
    known = int(11 * rate_hz) + 1  # a second more than is kept, so that no filter sees the cut
    picked = values[_model_rows(values.shape[0], leads), :known]
    picked = picked - picked.mean(axis=1, keepdims=True)
    if rate_hz != MODEL_RATE_HZ:
        ratio = Fraction(round(10 * rate_hz), 10 * MODEL_RATE_HZ)
        # Padded by the line between the ends, else every lead would ring at both.
        picked = resample_poly(picked, ratio.denominator, ratio.numerator, axis=1, padtype="line")
    picked = picked[:, :MODEL_SAMPLES]
    scale = picked.std(axis=1)
    rounding = 1e-9 * np.abs(values).max()
    if flat := [lead for lead, std in zip(MODEL_LEADS, scale, strict=True) if std <= rounding]:
        raise EcgInputError(
            f"The ECG is constant in {', '.join(flat)}, as of a loose electrode: repair or drop "
            "the record."
        )
    normalised = (picked - picked.mean(axis=1, keepdims=True)) / scale[:, None]
    padding = MODEL_SAMPLES - normalised.shape[1]
    return np.pad(normalised, ((0, 0), (0, padding))).astype(np.float32)


def read_ecg_file(path: str | PathLike[str]) -> dict[str, Any]:
    """An ECG file as the fields of a chat part.

    A ``.npy`` file is an array, leads x samples; anything else is a WFDB record, named with or
    without its ``.hea``, ``.dat`` or ``.mat``, and brings its ``leads`` and ``rate_hz``.

    Raises:
        EcgInputError: the file is missing or damaged.
    """
    file = Path(path)
    try:
        if file.suffix == ".npy":
            return {"ecg": np.load(file, allow_pickle=False)}
        import wfdb  # here: whoever has arrays needs no wfdb

        record = wfdb.rdrecord(str(file.with_suffix("") if file.suffix in WFDB_SUFFIXES else file))
        return {"ecg": record.p_signal.T, "leads": record.sig_name, "rate_hz": float(record.fs)}
    except Exception as error:  # a reader raises whatever a damaged file makes it trip over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EcgInputError(
            f"The ECG {path} cannot be read ({reason}): give a WFDB record, a .npy file or an "
            "array."
        ) from error


def _checked(signal: Any) -> np.ndarray:
    """``signal`` as float64, leads x samples, all finite."""
    try:
        values = np.asarray(signal, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EcgInputError(f"An ECG must be an array of leads x samples: {error}.") from error
    if values.size == 0:
        raise EcgInputError(f"The ECG is empty, of shape {values.shape}: drop the record.")
    if values.ndim != 2 or values.shape[0] > values.shape[1]:
        raise EcgInputError(
            f"An ECG must be leads x samples, got shape {values.shape}: transpose samples x leads, "
            "and give each ECG a part of its own."
        )
    if not np.isfinite(values).all():
        raise EcgInputError("The ECG holds NaN or infinite samples: repair or drop the record.")
    return values


def _model_rows(rows: int, leads: Sequence[str] | None) -> list[int]:
    """Where the model's leads stand among ``rows`` rows named ``leads``."""
    by_count = {len(STANDARD_LEADS): STANDARD_LEADS, len(MODEL_LEADS): MODEL_LEADS}
    names = by_count.get(rows, ()) if leads is None else leads
    position = {name.strip().upper(): row for row, name in enumerate(names)}
    missing = [name for name in MODEL_LEADS if name.upper() not in position]
    if missing or not len(names) == len(position) == rows:
        raise EcgInputError(
            f"The ECG has {rows} rows named {list(names)}; needed are the leads "
            f"{', '.join(MODEL_LEADS)}, one name per row."
        )
    return [position[name.upper()] for name in MODEL_LEADS]
