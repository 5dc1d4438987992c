"""Parameters of a size, counted on its architecture without any weight in memory."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from peft import get_peft_model

from qoq_lib.model.from_base import base_config
from qoq_lib.model.loading import ModelSize, tiny_model
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.tuning import Part, Tuning, prepare

QLORA_BYTES = 4.127 / 8  # per weight: 4 bits and their constants, arXiv 2305.14314, section 3
_QUANTIZED = re.compile(r"model\.language_model\.layers\.\d+\..*_proj\..*weight")
_LAYER = re.compile(r"(model\.language_model\.layers|model\.visual\.blocks)\.\d+\.")


@dataclass(frozen=True)
class Counts:
    """Parameters, and the bytes they take on one GPU.

    Attributes:
        total: of the model itself, without adapters.
        trained: that an optimiser changes, adapters included.
        weights: all that are in memory; adapters keep a frozen copy of what they train in full.
        frozen_bytes, trained_bytes: of the weights in their own precision.
        layer: of the largest layer.
        outside: of everything that is in no layer, such as embeddings.
    """

    total: int
    trained: int
    weights: int
    frozen_bytes: int
    trained_bytes: int
    layer: int
    outside: int


def size_config(size: ModelSize) -> Any:
    """The size's ``QoQConfig``; ``LoadError`` if its base cannot be had."""
    return tiny_model()[0].config if size.base == "tiny" else base_config(size.base)


def count_parameters(size: ModelSize) -> Counts:
    """Count the parameters of ``size``, adapters included.

    Raises:
        LoadError: the base cannot be had.
        TuningError: what ``size`` says of tuning cannot be done.
    """
    return _count(size.base, size.tuning, tuple(size.trainable), size.dtype)


@lru_cache(maxsize=32)
def _count(base: str, tuning: Any, trainable: tuple[Any, ...], dtype: str) -> Counts:
    model = tiny_model()[0] if base == "tiny" else hollow_model(base_config(base), dtype)
    return adapted(model, tuning, trainable)[1]


def hollow_model(config: Any, dtype: str) -> QoQForConditionalGeneration:
    """The architecture on PyTorch's meta device: shapes and types, no values."""
    with torch.device("meta"):
        return QoQForConditionalGeneration(config).to(getattr(torch, dtype))


def adapted(model: Any, tuning: Tuning, trainable: Sequence[Part]) -> tuple[Any, Counts]:
    """``model``, changed in place as training would, and its parameters.

    QLoRA gets LoRA's adapters, which needs no GPU; only the weights below them count as smaller.
    """
    total = sum(weight.numel() for weight in model.parameters())
    adapters = prepare(model, "lora" if tuning == "qlora" else tuning, trainable)
    model = get_peft_model(model, adapters) if adapters else model
    trained = frozen = trained_bytes = outside = 0
    frozen_bytes = 0.0
    layers: dict[str, int] = defaultdict(int)
    for name, weight in model.named_parameters():
        name, count = name.removeprefix("base_model.model."), weight.numel()
        if place := _LAYER.match(name):
            layers[place[0]] += count
        else:
            outside += count
        if weight.requires_grad:
            trained += count
            # TRL trains the adapters of a quantised model in bfloat16.
            trained_bytes += count * (2 if tuning == "qlora" else weight.element_size())
        else:
            frozen += count
            small = tuning == "qlora" and weight.ndim == 2 and _QUANTIZED.match(name)
            frozen_bytes += count * (QLORA_BYTES if small else weight.element_size())
    return model, Counts(
        total=total,
        trained=trained,
        weights=trained + frozen,
        frozen_bytes=int(frozen_bytes),
        trained_bytes=trained_bytes,
        layer=max(layers.values()),
        outside=outside,
    )
