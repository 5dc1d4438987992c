"""The processor: chat messages with text, images and ECGs -> what ``QoQ.generate`` takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs

MODEL_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MODEL_RATE_HZ, MODEL_SAMPLES = 250, 2500

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
    "': use text, image or ecg.') }}"
    "{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's chat format with one content type more; a system turn stands only where given."""

TEXT_KWARGS = ("padding", "padding_side", "truncation", "max_length")


class EcgInputError(ValueError):
    """An ECG that cannot be read as leads x samples of millivolts."""


def prepare_ecg(
    signal: np.ndarray, leads: Sequence[str] | None = None, rate_hz: float = 500.0
) -> np.ndarray:
    """One ECG as the encoder takes it: leads I, II, V1-V6, 10 s at 250 Hz, z-scored per lead.

    Args:
        signal: leads x samples, in millivolts (any linear unit gives the same result).
        leads: one name per row, any case; by default the standard 12 or the model's 8 in order.
        rate_hz: samples a second of ``signal``. Longer records are cropped, shorter ones are padded
            with zeros (the lead's mean after normalisation).

    Returns:
        float32, 8 x 2500.

    Raises:
        EcgInputError: wrong shape, missing leads, NaN/infinite samples, or no real rate.
    """
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim != 2 or signal.shape[1] == 0 or signal.shape[0] > signal.shape[1]:
        raise EcgInputError(f"An ECG must be leads x samples, got shape {signal.shape}.")
    if not np.isfinite(signal).all():
        raise EcgInputError("The ECG holds NaN or infinite samples: repair or drop the record.")
    if not 1 <= rate_hz < np.inf:
        raise EcgInputError(
            f"The ECG's sampling rate must be 1 sample a second or more, got {rate_hz!r}."
        )
    if leads is None:
        by_count = {len(STANDARD_LEADS): STANDARD_LEADS, len(MODEL_LEADS): MODEL_LEADS}
        leads = by_count.get(signal.shape[0], ())
    position = {name.upper(): row for row, name in enumerate(leads)}
    missing = [name for name in MODEL_LEADS if name.upper() not in position]
    if missing or len(leads) != signal.shape[0]:
        raise EcgInputError(
            f"The ECG has {signal.shape[0]} rows named {list(leads)}; needed are the leads "
            f"{', '.join(MODEL_LEADS)}, one name per row."
        )
    picked = signal[[position[name.upper()] for name in MODEL_LEADS]]
    if rate_hz != MODEL_RATE_HZ:
        # Without offset and padded by the line between the ends: else a flat lead would ripple, and
        # every lead ring at both ends.
        picked = picked - picked.mean(axis=1, keepdims=True)
        picked = resample_poly(picked, MODEL_RATE_HZ, int(round(rate_hz)), axis=1, padtype="line")
    picked = picked[:, :MODEL_SAMPLES]
    scale = np.maximum(picked.std(axis=1, keepdims=True), 1e-6)  # a flat lead stays flat
    normalised = (picked - picked.mean(axis=1, keepdims=True)) / scale
    padding = MODEL_SAMPLES - normalised.shape[1]
    return np.pad(normalised, ((0, 0), (0, padding))).astype(np.float32)


class QoQProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Defaults of ``QoQProcessor.__call__``."""

    _defaults = {"text_kwargs": {"padding": False, "return_mm_token_type_ids": True}}


class QoQProcessor(ProcessorMixin):
    """Image processor and tokenizer in one, with ``{"type": "ecg", "ecg": array}`` chat parts.

    An ECG part may carry ``"leads"`` (names) and ``"rate_hz"``; see ``prepare_ecg``. No video
    processor: volumes and videos enter as images.
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
        """Tokenise ``text``; ``ecgs`` holds each row's ECG parts (empty where a row has none)."""
        rows = [text] if isinstance(text, str) else list(text)
        rows = [row.replace(ECG_TOKEN, ECG_TOKEN * self.ecg_tokens) for row in rows]
        features = super().__call__(images=_flat(images), text=rows, **kwargs)
        if ecgs is not None:
            features.update(self._ecg_features(rows, ecgs))
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

    def _ecg_features(
        self, rows: Sequence[str], ecgs: Sequence[Sequence[Mapping[str, Any]]]
    ) -> dict[str, torch.Tensor]:
        for index, (row, parts) in enumerate(zip(rows, ecgs, strict=True)):
            if row.count(ECG_TOKEN) != len(parts) * self.ecg_tokens:
                raise EcgInputError(
                    f"Row {index} has {row.count(ECG_TOKEN) // self.ecg_tokens} ECG placeholders "
                    f"but {len(parts)} ECGs: give one {{'type': 'ecg'}} part per ECG."
                )
        if not any(ecgs):
            return {}
        values = [_prepare_part(part) for parts in ecgs for part in parts]
        return {
            "ecg_values": torch.from_numpy(np.stack(values)),
            "ecg_counts": torch.tensor([len(parts) for parts in ecgs]),
        }


def suppressed_token_ids(tokenizer: Any) -> list[int]:
    """Ids of ``UNSAMPLED_TOKENS`` and padding, for ``generate(suppress_tokens=...)``."""
    ids = tokenizer.convert_tokens_to_ids(list(UNSAMPLED_TOKENS))
    stop = {tokenizer.eos_token_id}
    return sorted({token for token in [*ids, tokenizer.pad_token_id] if token not in stop})


def vllm_suppression(tokenizer: Any) -> dict[str, list[str]]:
    """The same ban for ``vllm.SamplingParams``, which knows no ``suppress_tokens``.

    Its ``bad_words`` sets the logits to minus infinity, where a ``logit_bias`` stops at -100. It is
    also what TRL's ``generation_kwargs`` need with ``use_vllm``: TRL hands them on unchanged.
    """
    return {"bad_words": tokenizer.convert_ids_to_tokens(suppressed_token_ids(tokenizer))}


def _prepare_part(part: Mapping[str, Any]) -> np.ndarray:
    given = {name: part[name] for name in ("leads", "rate_hz") if part.get(name) is not None}
    return prepare_ecg(part["ecg"], **given)


def _parts(messages: Any, kind: str) -> list[Mapping[str, Any]]:
    """All content parts of one type in a conversation, in order."""
    return [
        part
        for message in messages
        if isinstance(message["content"], (list, tuple))
        for part in message["content"]
        if part["type"] == kind
    ]


def _flat(images: Any) -> list[Any] | None:
    """Rows of images (``None`` where a row has none) as one flat list, or ``None`` if all empty."""
    if images is None:
        return None
    rows = images if isinstance(images, (list, tuple)) else [images]
    flat = [
        image
        for row in rows
        for image in (row if isinstance(row, (list, tuple)) else [] if row is None else [row])
    ]
    return flat or None
