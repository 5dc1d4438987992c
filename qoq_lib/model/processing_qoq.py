"""The processor: chat messages with text, images and ECGs -> what ``QoQ.generate`` takes."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs

MODEL_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MODEL_RATE_HZ, MODEL_SAMPLES = 250, 2500
WFDB_SUFFIXES = (".hea", ".dat", ".mat")

IMAGE_TOKEN, ECG_TOKEN = "<|image_pad|>", "<|ecg_pad|>"
UNSAMPLED_TOKENS = (
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", IMAGE_TOKEN, "<|video_pad|>"),
    *("<|ecg_start|>", "<|ecg_end|>", ECG_TOKEN, "<|im_start|>"),
)
"""Tokens that stand for media or structure: a policy that sampled one would crash its next
forward pass ("image features and image tokens do not match"), so generation suppresses them."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'ecg' %}<|ecg_start|><|ecg_pad|><|ecg_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}{{ raise_exception('Unknown content type ' ~ part['type'] ~ "
    "': use text, image or ecg; a volume or video enters as images.') }}"
    "{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's chat format with one content type more; a system turn stands only where given."""

TEXT_KWARGS = ("padding", "padding_side", "truncation", "max_length")


class EcgInputError(ValueError):
    """An ECG that cannot be read as leads x samples of a voltage."""


class PlaceholderError(ValueError):
    """A prompt's placeholders and its media do not match; the message names the row."""


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


class QoQProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Defaults of ``QoQProcessor.__call__``."""

    _defaults = {"text_kwargs": {"padding": False, "return_mm_token_type_ids": True}}


class QoQProcessor(ProcessorMixin):
    """Image processor and tokenizer in one, with ``{"type": "ecg", "ecg": ...}`` chat parts.

    The ECG is an array (``prepare_ecg``) or a path (``read_ecg_file``); the part may carry
    ``"leads"`` (names) and ``"rate_hz"``. ``ecg_tokens`` is ``EcgConfig.out_tokens`` of the model.
    There is no video processor: volumes and videos enter as images, drawn by
    ``qoq_lib.model.frames.evenly_spaced_frames``.
    """

    valid_processor_kwargs = QoQProcessorKwargs

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        ecg_tokens: int = 8,
    ) -> None:
        self.image_token, self.ecg_tokens = IMAGE_TOKEN, ecg_tokens
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """As many placeholders as the image has merged patches."""
        patches = int(image_inputs["image_grid_thw"][image_idx].prod())
        return self.image_token * (patches // self.image_processor.merge_size**2)

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        ecgs: Sequence[Sequence[Mapping[str, Any]]] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tokenise ``text``; ``ecgs`` holds each row's ECG parts (empty where a row has none).

        Raises:
            PlaceholderError: a row has more or fewer placeholders than media.
            EcgInputError: an ECG cannot be read; the message names its row.
        """
        rows = [text] if isinstance(text, str) else list(text)
        _check_images(rows, images)
        if ecgs is not None:
            _check_counts(rows, ECG_TOKEN, "ecg", [len(parts) for parts in ecgs])
        rows = [row.replace(ECG_TOKEN, ECG_TOKEN * self.ecg_tokens) for row in rows]
        features = super().__call__(images=_flat(images), text=rows, **kwargs)
        if ecgs is not None and any(ecgs):
            values = [_prepare_part(part, row) for row, parts in enumerate(ecgs) for part in parts]
            features["ecg_values"] = torch.from_numpy(np.stack(values))
            features["ecg_counts"] = torch.tensor([len(parts) for parts in ecgs])
        return features

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``ProcessorMixin``'s, and collects the ECG parts of every conversation."""
        batch = conversation if isinstance(conversation[0], (list, tuple)) else [conversation]
        ecgs = [_parts(messages, "ecg") for messages in batch]
        if kwargs.get("tokenize"):
            # Left where they are, these would replace "processor_kwargs", the ECGs with them.
            loose = {name: kwargs.pop(name) for name in TEXT_KWARGS if name in kwargs}
            given = kwargs.get("processor_kwargs") or {}
            kwargs["processor_kwargs"] = {**loose, **given, "ecgs": ecgs}
        return super().apply_chat_template(conversation, *args, **kwargs)


def suppressed_token_ids(tokenizer: Any) -> list[int]:
    """Ids of ``UNSAMPLED_TOKENS`` and padding, for ``generate(suppress_tokens=...)``."""
    ids = tokenizer.convert_tokens_to_ids(list(UNSAMPLED_TOKENS))
    stop = {tokenizer.eos_token_id}
    return sorted({token for token in [*ids, tokenizer.pad_token_id] if token not in stop})


def _prepare_part(part: Mapping[str, Any], row: int) -> np.ndarray:
    given = {name: part[name] for name in ("leads", "rate_hz") if part.get(name) is not None}
    ecg = part.get("ecg")
    try:
        fields = read_ecg_file(ecg) if isinstance(ecg, (str, PathLike)) else {"ecg": ecg}
        return prepare_ecg(fields.pop("ecg"), **{**fields, **given})
    except EcgInputError as error:
        raise EcgInputError(f"Row {row}: {error}") from error


def _parts(messages: Any, kind: str) -> list[Mapping[str, Any]]:
    """All content parts of one type in a conversation, in order."""
    return [
        part
        for message in messages
        if isinstance(message.get("content"), (list, tuple))
        for part in message["content"]
        if part["type"] == kind
    ]


def _check_images(rows: Sequence[str], images: Any) -> None:
    """Row by row where ``images`` is nested or empty, else in sum."""
    flat = _flat(images) or []
    if not flat:
        images = [()] * len(rows)
    if _is_list(images) and all(im is None or _is_list(im) for im in images):
        _check_counts(rows, IMAGE_TOKEN, "image", [len(row or ()) for row in images])
    elif (found := sum(row.count(IMAGE_TOKEN) for row in rows)) != len(flat):
        raise PlaceholderError(_mismatch("The batch", IMAGE_TOKEN, "image", found, len(flat)))


def _check_counts(rows: Sequence[str], token: str, kind: str, counts: Sequence[int]) -> None:
    if len(counts) != len(rows):
        raise PlaceholderError(f"{len(rows)} texts came with {kind}s for {len(counts)} rows.")
    for index, (row, count) in enumerate(zip(rows, counts, strict=True)):
        if row.count(token) != count:
            raise PlaceholderError(_mismatch(f"Row {index}", token, kind, row.count(token), count))


def _mismatch(where: str, token: str, kind: str, found: int, given: int) -> str:
    return (
        f"{where} has {found} {kind} placeholders but {given} {kind}s: give one "
        f"{{'type': '{kind}'}} part for each, and keep {token} out of the text."
    )


def _flat(images: Any) -> list[Any] | None:
    """Rows of images (``None`` where a row has none) as one flat list, or ``None`` if all empty."""
    rows: Iterable[Any] = images if _is_list(images) else [images]
    nested = [row if _is_list(row) else [row] for row in rows if row is not None]
    return [image for row in nested for image in row] or None


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))
