"""What a step's passes cost at least: floating-point operations, bytes, and the device's limits.

A multiplication and an addition are two operations. Counted are matrix products alone, as
``torch.utils.flop_counter`` does:

- a linear layer of N weights: 2 N a token forward; backward 2 N for the gradient of its input and,
  only where its weights are trained, 2 N more. With LoRA (adapters included) a step's backward thus
  counts about as much as its forward pass, not twice as much.
- attention: 4 x width a pair of query and key forward, twice that backward, and only for pairs
  that the mask lets see each other: what is masked out is no work that had to be done.
- what gradient checkpointing computes a second time is counted apart: it is work of the hardware,
  not of the model. Utilisation without it is the model's (MFU), with it the hardware's (HFU).
- a frozen vision tower has no backward.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qoq_lib.training.sharing import backbone_of

# Bytes a second of the memory, and dense bfloat16 operations a second: NVIDIA's data sheets.
DATA_SHEETS = {
    "H200": (4.8e12, 989e12),
    "H100 PCIe": (2.0e12, 756e12),
    "H100 NVL": (3.9e12, 835e12),
    "H100": (3.35e12, 989e12),
    "A100-SXM4-80GB": (2.039e12, 312e12),
    "A100 80GB PCIe": (1.935e12, 312e12),
    "A100": (1.555e12, 312e12),
}
COPIED = 2**25  # numbers, far more than any cache holds
SQUARE = {"cuda": 8192, "cpu": 1024}  # rows of the matrices multiplied
TRIES = 10


@dataclass(frozen=True)
class Limits:
    """``bandwidth`` in bytes/s and ``peak`` in operations/s; ``source``: who says so."""

    bandwidth: float
    peak: float
    source: str


def device_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """From the data sheet in bfloat16 on a GPU listed here, else as a copy and a product show."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    for known, (bandwidth, peak) in DATA_SHEETS.items():
        if dtype == torch.bfloat16 and re.search(rf"\b{known}\b", name):
            return Limits(bandwidth, peak, "data sheet")
    return measured_limits(device, dtype)


def measured_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Bandwidth of a copy (read and written) and operations a second of a product, best of 10."""
    source = torch.zeros(COPIED, dtype=dtype, device=device)
    target = torch.empty_like(source)
    side = SQUARE[device.type]
    left = torch.ones(side, side, dtype=dtype, device=device)
    copy = _fastest(lambda: target.copy_(source), device)
    product = _fastest(lambda: left @ left, device)
    moved = 2 * source.numel() * source.element_size()
    return Limits(moved / copy, 2 * side**3 / product, "measured")


def _fastest(work: Callable[[], Any], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(TRIES):
        wait()
        begin = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - begin)
    return min(times)


@dataclass(frozen=True)
class Weights:
    """Weights of linear layers: in ``total`` and, of these, ``trained``."""

    total: int
    trained: int

    @classmethod
    def of(cls, *modules: nn.Module) -> "Weights":
        """Those of the linear layers and convolutions in ``modules``, adapters included."""
        found = [
            layer.weight
            for module in modules
            for layer in module.modules()
            if isinstance(layer, (nn.Linear, nn.Conv3d))
        ]
        trained = sum(weight.numel() for weight in found if weight.requires_grad)
        return cls(sum(weight.numel() for weight in found), trained)

    def forward(self, tokens: int) -> int:
        """Operations of the forward pass."""
        return 2 * tokens * self.total

    def backward(self, tokens: int) -> int:
        """Operations of the gradients of inputs and of trained weights."""
        return 2 * tokens * (self.total + self.trained)


def pairs_seen(mask: Any, rows: int, width: int) -> int:
    """Pairs of query and key in one layer: those a four-dimensional mask allows, else causal."""
    if not isinstance(mask, torch.Tensor) or mask.ndim != 4:
        return rows * width * (width + 1) // 2
    return int((mask if mask.dtype == torch.bool else mask == 0).sum())


class Work:
    """Operations of one model's passes (see the module), and the bytes that decoding reads.

    Args:
        model: a ``QoQForConditionalGeneration``, with or without adapters, ready to be trained.
        checkpointing: whether decoder layers are computed again in the backward pass.
    """

    def __init__(self, model: Any, checkpointing: bool) -> None:
        backbone, head = backbone_of(model), model.get_output_embeddings()
        layers, tower = backbone.language_model.layers, backbone.visual
        self.checkpointing = checkpointing
        self.text, self.output = Weights.of(layers), Weights.of(head)
        self.tower, self.merger = Weights.of(tower.blocks), Weights.of(tower.merger)
        self.patches = Weights.of(tower.patch_embed)
        self.vision = tower.config
        config = backbone.config.text_config
        head_width = config.hidden_size // config.num_attention_heads
        self.attention = 4 * config.num_hidden_layers * config.hidden_size
        weights = [*layers.parameters(), *head.parameters()]
        self.weight_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
        size = next(iter(head.parameters())).element_size()
        per_layer = 2 * config.num_key_value_heads * head_width * size  # keys and values
        self.cache_bytes = config.num_hidden_layers * per_layer  # a token

    def backbone(self, tokens: int, pairs: int, grids: torch.Tensor | None) -> int:
        """Forward, all but the output layer; ``grids`` are the images' ``image_grid_thw``."""
        return self.text.forward(tokens) + self.attention * pairs + self._images(grids)

    def backbone_backward(self, tokens: int, pairs: int, grids: torch.Tensor | None) -> int:
        """Gradients of the same."""
        images = self._images_backward(grids) if self.tower.trained else 0
        return self.text.backward(tokens) + 2 * self.attention * pairs + images

    def recomputed(self, tokens: int, pairs: int) -> int:
        """Forward of the decoder layers once more, under gradient checkpointing."""
        again = self.text.forward(tokens) + self.attention * pairs
        return again if self.checkpointing else 0

    def head(self, tokens: int) -> int:
        """Forward of the output layer."""
        return self.output.forward(tokens)

    def head_backward(self, tokens: int) -> int:
        """Its gradients."""
        return self.output.backward(tokens)

    def decoding_bound(
        self, limits: Limits, questions: int, rollouts: int, prompt: int, new: int
    ) -> dict[str, float]:
        """Least seconds to decode: reading weights and cache, or computing, whichever is longer.

        Every token step reads all weights, and of the cache at least each question's prompt once
        and what the rollouts hold of their own so far.
        """
        rows, half = questions * rollouts, new / 2
        weights = new * self.weight_bytes / limits.bandwidth
        kept = (questions * prompt + rows * half) * self.cache_bytes
        cache = new * kept / limits.bandwidth
        each = self.text.forward(1) + self.output.forward(1) + self.attention * (prompt + half)
        compute = new * rows * each / limits.peak
        bound = max(weights + cache, compute)
        return {"seconds": bound, "weights": weights, "cache": cache, "operations": compute}

    def _images(self, grids: torch.Tensor | None) -> int:
        patches, merged, attention = self._image_counts(grids)
        linear = self.patches.forward(patches) + self.tower.forward(patches)
        return linear + self.merger.forward(merged) + attention

    def _images_backward(self, grids: torch.Tensor | None) -> int:
        patches, merged, attention = self._image_counts(grids)
        own = 2 * patches * self.patches.trained  # pixels need no gradient
        linear = own + self.tower.backward(patches) + self.merger.backward(merged)
        return linear + 2 * attention

    def _image_counts(self, grids: torch.Tensor | None) -> tuple[int, int, int]:
        """Patches, merged patches, and operations of attention, which stays inside windows."""
        config = self.vision
        merge, full = config.spatial_merge_size, len(config.fullatt_block_indexes)
        side = config.window_size // config.patch_size
        patches, pairs = 0, 0
        for _, height, width in [] if grids is None else grids.tolist():
            patches += height * width
            windows = _squares(height, side) * _squares(width, side)
            pairs += full * (height * width) ** 2 + (config.depth - full) * windows
        return patches, patches // merge**2, 4 * config.hidden_size * pairs


def _squares(length: int, side: int) -> int:
    """Sum of the squared lengths of windows of ``side`` patches, the last one maybe shorter."""
    return length // side * side**2 + (length % side) ** 2
