"""The processor: chat messages with text, images and ECGs -> what ``QoQ.generate`` takes."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs

from .ecg_signal import EcgInputError, prepare_ecg, read_ecg_file

IMAGE_TOKEN, ECG_TOKEN = "<|image_pad|>", "<|ecg_pad|>"
UNSAMPLED_TOKENS = (
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", IMAGE_TOKEN, "<|video_pad|>"),
    *("<|ecg_start|>", "<|ecg_end|>", ECG_TOKEN, "<|im_start|>"),
)
"""Tokens that stand for media or structure: a policy that sampled one would crash its next
forward pass ("image features and image tokens do not match"), so generation suppresses them."""

CONTENT_TYPES = ("text", "image", "image_url", "ecg")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'ecg' %}<|ecg_start|><|ecg_pad|><|ecg_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}{{ raise_exception('Unknown content type ' ~ part['type']) }}"
    "{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's chat format with one content type more; a system turn stands only where given."""

TEXT_KWARGS = ("padding", "padding_side", "truncation", "max_length")


class ChatError(ValueError):
    """A chat whose parts, placeholders and media do not match; the message names the row."""


class QoQProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Defaults of ``QoQProcessor.__call__``."""

    _defaults = {"text_kwargs": {"padding": False, "return_mm_token_type_ids": True}}


class QoQProcessor(ProcessorMixin):
    """Image processor and tokenizer in one, with ``{"type": "ecg", "ecg": ...}`` chat parts.

    The ECG is an array or a path (``ecg_signal``: ``prepare_ecg``, ``read_ecg_file``); the part may
    carry ``"leads"`` (names) and ``"rate_hz"``. ``ecg_tokens`` is the model's
    ``EcgConfig.out_tokens``. There is no video processor: volumes and videos enter as images, drawn
    by ``evenly_spaced_frames`` (``qoq_lib.data.frames``).
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
            ChatError: a row has more or fewer placeholders than media.
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
        """As ``ProcessorMixin``'s, and collects the ECG parts of every conversation.

        Raises:
            ChatError: a content type is unknown; and the errors of ``__call__``.
        """
        batch = conversation if _is_list(conversation[0]) else [conversation]
        ecgs = [_ecg_parts(messages, row) for row, messages in enumerate(batch)]
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


def vllm_suppression(tokenizer: Any) -> dict[str, list[str]]:
    """The same ban for ``vllm.SamplingParams``, which knows no ``suppress_tokens``.

    Its ``bad_words`` sets the logits to minus infinity, where a ``logit_bias`` stops at -100. It is
    also what TRL's ``generation_kwargs`` need with ``use_vllm``: TRL hands them on unchanged.
    """
    return {"bad_words": tokenizer.convert_ids_to_tokens(suppressed_token_ids(tokenizer))}


def _prepare_part(part: Mapping[str, Any], row: int) -> np.ndarray:
    given = {name: part[name] for name in ("leads", "rate_hz") if part.get(name) is not None}
    ecg = part.get("ecg")
    try:
        fields = read_ecg_file(ecg) if isinstance(ecg, (str, PathLike)) else {"ecg": ecg}
        return prepare_ecg(fields.pop("ecg"), **{**fields, **given})
    except EcgInputError as error:
        raise EcgInputError(f"Row {row}: {error}") from error


def _ecg_parts(messages: Any, row: int) -> list[Mapping[str, Any]]:
    """The ECG parts of a conversation, in order, once every part is of a known type."""
    turns = (message.get("content") for message in messages)
    parts = [part for content in turns if _is_list(content) for part in content]
    for part in parts:
        if part.get("type") not in CONTENT_TYPES:
            raise ChatError(
                f"Row {row}: unknown content type {part.get('type')!r}: use text, image or ecg; a "
                "volume or video enters as images."
            )
    return [part for part in parts if part["type"] == "ecg"]


def _check_images(rows: Sequence[str], images: Any) -> None:
    """Row by row where ``images`` is nested or empty, else in sum."""
    flat = _flat(images) or []
    if not flat:
        images = [()] * len(rows)
    if _is_list(images) and all(im is None or _is_list(im) for im in images):
        _check_counts(rows, IMAGE_TOKEN, "image", [len(row or ()) for row in images])
    elif (found := sum(row.count(IMAGE_TOKEN) for row in rows)) != len(flat):
        raise ChatError(_mismatch("The batch", IMAGE_TOKEN, "image", found, len(flat)))


def _check_counts(rows: Sequence[str], token: str, kind: str, counts: Sequence[int]) -> None:
    if len(counts) != len(rows):
        raise ChatError(
            f"{len(rows)} texts came with {kind}s for {len(counts)} rows: give one list per text."
        )
    for index, (row, count) in enumerate(zip(rows, counts, strict=True)):
        if row.count(token) != count:
            raise ChatError(_mismatch(f"Row {index}", token, kind, row.count(token), count))


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
