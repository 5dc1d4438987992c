"""How a row becomes a model's input: of QoQ models, and of those with their own processor."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from datasets import Dataset

from qoq_lib.data.example import ecg_array
from qoq_lib.data.prompts import AnswerStyle, to_messages
from qoq_lib.evaluation.metrics import PredictionsError
from qoq_lib.model.pixels import model_view
from qoq_lib.model.processing_qoq import QoQProcessor


def is_qoq(processor: Any) -> bool:
    """Whether the model is one of ours: reads ECGs, and scores options (``option_logprobs``)."""
    return isinstance(processor, QoQProcessor)


def without_ecg(rows: Dataset) -> Dataset:
    """The rows that any model of images and text can be asked."""
    return rows.select([place for place, leads in enumerate(rows["ecg_leads"]) if leads is None])


def refuse_unaskable(processor: Any, rows: Dataset, logprobs: bool) -> None:
    """Raise ``PredictionsError`` where the model cannot read the rows or score their options."""
    if is_qoq(processor):
        return
    if logprobs:
        raise PredictionsError(
            "Options are scored for QoQ and Qwen2.5-VL models alone: ask this one with logprobs "
            "False, and its answers have neither AUROC nor calibration."
        )
    if count := len(rows) - len(without_ecg(rows)):
        raise PredictionsError(
            f"{count} of {len(rows)} rows have an ECG, which this model cannot read: leave them "
            "out (prompting.without_ecg), or ask a QoQ model."
        )


def view_of(row: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """A copy of the row with images as the model is given them, and boxes in their pixels.

    A model with a processor of its own is given the images as they are: how it resizes them, and in
    which pixels it would speak of boxes, is its own affair.
    """
    if is_qoq(processor):
        return model_view(row, processor.image_processor)
    return {**row, "images": [image.convert("RGB") for image in row["images"] or []]}


def prompt_inputs(
    model: Any, processor: Any, views: Sequence[Mapping[str, Any]], style: AnswerStyle
) -> Any:
    """The prompts of rows (``view_of``) as the model's inputs, padded on the left."""
    inputs = processor.apply_chat_template(
        [_messages(processor, view, style) for view in views],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )
    if is_qoq(processor):
        return inputs.to(model.device)
    return inputs.to(model.device, model.dtype)  # not every model casts the pixels by itself


def prompt_hash(processor: Any, view: Mapping[str, Any], style: AnswerStyle) -> str:
    """SHA-256 of all that the model is given: chat text, pixels, and ECG with leads and rate."""
    chat = processor.apply_chat_template(
        _messages(processor, view, style), add_generation_prompt=True, tokenize=False
    )
    digest = sha256(chat.encode())
    for image in view["images"] or []:
        digest.update(repr(image.size).encode() + image.convert("RGB").tobytes())
    if (ecg := ecg_array(view)) is not None:
        digest.update(repr((ecg.shape, view["ecg_leads"], view["ecg_rate_hz"])).encode())
        digest.update(np.ascontiguousarray(ecg).tobytes())
    return digest.hexdigest()


def _messages(processor: Any, view: Mapping[str, Any], style: AnswerStyle) -> list[dict[str, Any]]:
    """The chat; a template of another model says itself what stands before the user's turn."""
    messages = to_messages(view, style)
    return messages if is_qoq(processor) else messages[-1:]
