"""A model's step on tensors that have a shape, a type and a lifetime, but no values."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import torch
import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl as qwen
from torch._subclasses import fake_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qoq_lib.training import sharing

VISION = ("get_vision_position_ids", "get_vision_attention_seqlens", "get_vision_window_index")


class Meter(TorchDispatchMode):
    """Bytes of the tensors that are alive, and the most there were; fake tensors count as real."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.add(made)
        return made

    def add(self, tensors: Any) -> None:
        """Count the storages that are not counted yet, until they go."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.live)

    def _add(self, storage: torch.UntypedStorage) -> None:
        if (key := storage._cdata) not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.live += storage.nbytes()
            finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.live -= self.sizes.pop(key)

    def reset(self) -> None:
        """The most there were is what there is."""
        self.peak = self.live


class Kept(torch.autograd.Function):
    """Stands in for TRL's Triton kernel: keeps the logits, and makes a gradient like them."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
        """(..., vocabulary) -> (...)."""
        ctx.save_for_backward(logits)
        return logits.new_empty(logits.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """The shape and type of the logits."""
        return torch.empty_like(ctx.saved_tensors[0])


@contextmanager
def fake(side: int) -> Iterator[fake_tensor.FakeTensorMode]:
    """Tensors are fake, and what must be read from their values is worked out beside them."""
    limit, positions = fake_tensor.CONSTANT_NUMEL_LIMIT, sharing.positions
    kept = {name: getattr(qwen, name) for name in VISION}

    def beside(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(grid: torch.Tensor, *args: Any, **options: Any) -> Any:
            options["kwargs"] = {}
            with fake_tensor.unset_fake_temporarily():
                found = real(torch.tensor([[1, side, side]] * len(grid)), *args, **options)
            parts = found if isinstance(found, tuple) else (found,)
            copies = [torch.tensor(x.tolist()) if torch.is_tensor(x) else x for x in parts]
            return tuple(copies) if isinstance(found, tuple) else copies[0]

        return call

    fake_tensor.CONSTANT_NUMEL_LIMIT = 10**7  # so that token ids keep their values
    sharing.positions = lambda _, batch: batch["input_ids"].new_zeros(3, *batch["input_ids"].shape)
    for name, real in kept.items():
        setattr(qwen, name, beside(real))
    try:
        with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        fake_tensor.CONSTANT_NUMEL_LIMIT, sharing.positions = limit, positions
        for name, real in kept.items():
            setattr(qwen, name, real)
