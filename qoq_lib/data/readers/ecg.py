"""ECGs: WFDB records with a ``.dat`` or ``.mat`` signal, in millivolts."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import wfdb

from qoq_lib.data.readers.media import MAX_VALUES, MediaError, decoding

SIGNAL_SUFFIXES = (".mat", ".dat")
_LEADS = {
    lead.lower(): lead
    for lead in ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
}
_MILLIVOLTS = {"mv": 1.0, "uv": 1e-3, "v": 1e3}


@dataclass(frozen=True)
class Ecg:
    """One recording.

    ``signal`` is float32 millivolts, leads x samples, its rows named by ``leads``; ``rate_hz`` is
    samples a second; ``comments`` are the header's comment lines without their ``#``.
    """

    signal: np.ndarray
    leads: list[str]
    rate_hz: float
    comments: list[str]


def read_ecg(record_path: Path) -> Ecg:
    """The WFDB record at ``record_path``: header ``.hea`` with a ``.dat`` or ``.mat`` signal.

    ``record_path`` may carry one of these suffixes or none. Headers as they occur in the wild are
    read: any case of the unit, a stray slash before it, a record name with an extension, lead names
    in any case. ``MediaError`` on a missing, truncated, unreadable or absurdly long record, on NaN
    samples, on a constant lead, on a unit that is no voltage and on a header that points out of
    its folder.
    """
    header = header_path(record_path)
    if not header.is_file():
        raise MediaError(f"The ECG header {header} is missing: put it there or unlist the record.")
    record = _read_record(header)
    length, expected = len(record.p_signal), _header_length(header)
    if length == 0 or (expected is not None and length != expected):
        raise MediaError(
            f"The ECG {header} holds {length} samples where its header says {expected}: "
            "fetch the record again."
        )
    signal = record.p_signal.T * _scales(record.units, header)[:, None]
    if not np.isfinite(signal).all():
        raise MediaError(
            f"The ECG {header} has samples marked as missing (NaN): leave the record out."
        )
    leads = [_LEADS.get(name.strip().lower(), name.strip()) for name in record.sig_name]
    flat = [lead for lead, values in zip(leads, signal, strict=True) if np.ptp(values) == 0]
    if flat:
        raise MediaError(
            f"The ECG {header} is constant in {', '.join(flat)}, as of a loose electrode: leave "
            "the record out."
        )
    return Ecg(signal.astype(np.float32), leads, float(record.fs), list(record.comments))


def header_path(record_path: Path) -> Path:
    """The ``.hea`` file of a record named with or without its extension."""
    known = (".hea", *SIGNAL_SUFFIXES)
    if record_path.suffix in known:
        return record_path.with_suffix(".hea")
    return Path(f"{record_path}.hea")


def _read_record(header: Path) -> wfdb.Record:
    """The record in physical units, renamed first where its header's name has an extension."""
    with decoding("ECG", header, "fetch its header and signal file again, or leave it out"):
        lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
        _check_header(lines, header)
        if not _named_with_extension(lines):
            return wfdb.rdrecord(str(header.with_suffix("")))
        with tempfile.TemporaryDirectory() as folder:
            return wfdb.rdrecord(str(_renamed(header, lines, Path(folder))))


def _check_header(lines: Sequence[str], header: Path) -> None:
    """Refuse what wfdb would follow or allocate at the word of a header."""
    for name in [lines[0].split(" ")[0].split("/")[0] if lines else "", *_signal_files(lines)]:
        if PurePosixPath(name.replace("\\", "/")).name != name:
            raise MediaError(
                f"The ECG header {header} points out of its folder ({name!r}): leave the record "
                "out."
            )
    numbers = [
        int(field) for field in (lines[0].split()[1:4:2] if lines else []) if field.isdigit()
    ]
    if len(numbers) == 2 and numbers[0] * numbers[1] > MAX_VALUES:
        raise MediaError(
            f"The ECG header {header} declares {numbers[0]} leads of {numbers[1]} samples: cut the "
            "record, or leave it out."
        )


def _signal_files(lines: Sequence[str]) -> list[str]:
    return sorted({line.split(" ")[0] for line in lines[1:] if line[:1] not in ("#", "")})


def _named_with_extension(lines: Sequence[str]) -> bool:
    return bool(lines) and "." in lines[0].split(" ")[0]


def _renamed(header: Path, lines: Sequence[str], folder: Path) -> Path:
    """A copy of the record in ``folder`` under the plain name that wfdb insists on."""
    name, *rest = lines[0].split(" ")
    plain = Path(name).stem
    (folder / f"{plain}.hea").write_text("\n".join([" ".join([plain, *rest]), *lines[1:], ""]))
    for signal_file in _signal_files(lines):
        shutil.copy(header.parent / signal_file, folder)
    return folder / plain


def _header_length(header: Path) -> int | None:
    """Samples per lead by the header's record line, ``None`` where it does not say."""
    fields = header.read_text(encoding="utf-8", errors="replace").split("\n")[0].split()
    return int(fields[3]) if len(fields) > 3 and fields[3].isdigit() else None


def _scales(units: Sequence[str], header: Path) -> np.ndarray:
    """Per lead, the factor that turns its unit into millivolts."""
    keys = [unit.strip(" /").lower() for unit in units]
    unknown = [key for key in keys if key not in _MILLIVOLTS]
    if unknown:
        raise MediaError(
            f"The ECG {header} is in {unknown[0]!r}, which is no voltage: "
            "its header must say mV, uV or V."
        )
    return np.array([_MILLIVOLTS[key] for key in keys])
