"""Chats with any media, and what the processor makes of them, for the tests of the model."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration

RNG = np.random.default_rng(1)
Tiny = tuple[QoQForConditionalGeneration, Any]
Row = list[dict[str, Any]]


def image(width: int = 56, height: int = 56) -> dict[str, Any]:
    pixels = RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)
    return {"type": "image", "image": Image.fromarray(pixels)}


def ecg() -> dict[str, Any]:
    beats = np.sin(np.arange(2500) * RNG.uniform(0.01, 0.5, (8, 1))) ** RNG.integers(1, 20, (8, 1))
    return {"type": "ecg", "ecg": beats, "rate_hz": 250.0}


def ask(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


# None, one or two ECGs a row, with and without images, of lengths that need padding.
ROWS: list[Row] = [
    [image(), ask("Which diagnosis?")],
    [ecg(), ask("Normal or not? Look at every lead before you answer.")],
    [ask("No picture here.")],
    [ecg(), ask("earlier;"), ecg(), image(), ask("today")],
    [image(), image(), ecg(), ask("?")],
]


def inputs_of(processor: Any, rows: list[Row]) -> Any:
    return processor.apply_chat_template(
        [[{"role": "user", "content": row}] for row in rows],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )


@torch.no_grad()
def row_logits(tiny: Tiny, rows: list[Row]) -> list[torch.Tensor]:
    """The logits of every row, (its tokens, vocabulary), without the padding."""
    inputs = inputs_of(tiny[1], rows)
    logits = tiny[0](**inputs).logits
    return [row[mask == 1] for row, mask in zip(logits, inputs["attention_mask"], strict=True)]
