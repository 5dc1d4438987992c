"""Parameters of a size, counted on its architecture without any weight in memory."""

import copy
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from peft import get_peft_model

from qoq_lib.model.configuration_qoq import QoQConfig
from qoq_lib.model.from_base import base_config
from qoq_lib.model.loading import ModelSize, tiny_model
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.tuning import Part, Tuning, prepare

QLORA_BYTES = 4.127 / 8  # per weight: 4 bits and their constants, arXiv 2305.14314, section 3
_QUANTIZED = re.compile(r"model\.language_model\.layers\.\d+\..*_proj\..*weight")
_LAYER = re.compile(r"(model\.language_model\.layers\.|model\.visual\.blocks\.)\d+\.")
_ADDED = re.compile(r"\.lora_[AB]\.|\.modules_to_save\.")


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


def size_config(size: ModelSize) -> QoQConfig:
    """The size's configuration, a new one; ``LoadError`` if its base cannot be had."""
    return copy.deepcopy(_config(size.base))


@lru_cache(maxsize=8)
def _config(base: str) -> QoQConfig:
    return tiny_model()[0].config if base == "tiny" else base_config(base)


def shrunk(config: QoQConfig, layers: int) -> QoQConfig:
    """The same with so many layers of the language model and blocks of the vision tower."""
    config = copy.deepcopy(config)
    text, vision = config.text_config, config.vision_config
    text.num_hidden_layers, text.layer_types = layers, text.layer_types[:layers]
    vision.depth, vision.fullatt_block_indexes = layers, [layers - 1]
    return config


def count_parameters(size: ModelSize) -> Counts:
    """Count the parameters of ``size``, adapters included.

    Raises:
        LoadError: the base cannot be had.
        TuningError: what ``size`` says of tuning cannot be done.
    """
    return _count(size.base, size.tuning, tuple(size.trainable), size.dtype)


@lru_cache(maxsize=32)
def _count(base: str, tuning: Tuning, trainable: tuple[Part, ...], dtype: str) -> Counts:
    config = _config(base)
    times = {
        "model.language_model.layers.": config.text_config.num_hidden_layers,
        "model.visual.blocks.": config.vision_config.depth,
    }
    return adapted(hollow_model(shrunk(config, 1), dtype), tuning, trainable, times)[1]


def hollow_model(config: QoQConfig, dtype: str) -> QoQForConditionalGeneration:
    """The architecture on PyTorch's meta device: shapes and types, no values."""
    with torch.device("meta"):
        return QoQForConditionalGeneration(config).to(getattr(torch, dtype))


def adapted(
    model: Any, tuning: Tuning, trainable: Sequence[Part], times: Mapping[str, int] | None = None
) -> tuple[Any, Counts]:
    """``model``, changed in place as training would, and its parameters.

    ``times`` tells how many there are of a layer that is in the model once, by the start of its
    name. QLoRA gets LoRA's adapters, which needs no GPU; the weights below them count as smaller.
    """
    # Without a GPU: qlora would be refused.
    adapters = prepare(model, "lora" if tuning == "qlora" else tuning, trainable)
    model = get_peft_model(model, adapters) if adapters else model
    sums: dict[str, float] = defaultdict(float)
    layers: dict[str, int] = defaultdict(int)
    for name, weight in model.named_parameters():
        name = name.removeprefix("base_model.model.")
        count = weight.numel()
        place = _LAYER.match(name)
        if place:
            layers[place[0]] += count
            count *= (times or {}).get(place[1], 1)
        kind = "trained" if weight.requires_grad else "frozen"
        sums[kind] += count
        sums[f"{kind}_bytes"] += count * _bytes_each(name, weight, tuning)
        sums["outside"] += 0 if place else count
        sums["added"] += count if _ADDED.search(name) else 0
    whole = {name: int(number) for name, number in sums.items()}
    weights = whole["trained"] + whole.get("frozen", 0)
    return model, Counts(
        total=weights - whole["added"],
        trained=whole["trained"],
        weights=weights,
        frozen_bytes=whole.get("frozen_bytes", 0),
        trained_bytes=whole["trained_bytes"],
        layer=max(layers.values()),
        outside=whole["outside"],
    )


def _bytes_each(name: str, weight: torch.Tensor, tuning: Tuning) -> float:
    if tuning != "qlora":
        return weight.element_size()
    if weight.requires_grad:
        return 2  # TRL trains the adapters of a quantised model in bfloat16
    return QLORA_BYTES if weight.ndim == 2 and _QUANTIZED.match(name) else weight.element_size()
