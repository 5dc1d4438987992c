"""The memory plan of notebook 03 beside what one training step really asks for.

    python benchmarks/memory_plan.py                  # a CPU: shapes without values, nothing is allocated
    python benchmarks/memory_plan.py --device cuda    # a GPU: random weights, PyTorch's own peak
    python benchmarks/memory_plan.py --table          # the tables of docs/scaling.md

The step is the package's own: prompts read once for all their rollouts, LoRA adapters, gradient
checkpointing, log-probabilities of every new token, backward; and, without gradients, the reading of
all prompts and the last decoding step of all rollouts. On a CPU its tensors are fake ones of PyTorch:
they have a shape, a type and a lifetime but no values, so that a 7B model fits a laptop. That tells
what the step keeps alive; it does not see the CUDA context, fragmentation, or the scratch memory of
CUDA kernels.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from weakref import finalize

import torch
import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl as qwen
from peft import get_peft_model
from torch._subclasses import fake_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qoq_lib.model.from_base import base_config
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.tuning import prepare
from qoq_lib.training import sharing
from qoq_lib.training.memory import Work, rollout_memory, update_memory

PARTS: list[Any] = ["language_model", "ecg_encoder", "ecg_projector"]
GIB = 2**30


class Meter(TorchDispatchMode):
    """Bytes of the tensors that are alive, and the most there were; works for fake tensors."""

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
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in self.sizes:
                self.sizes[key] = storage.nbytes()
                self.live += self.sizes[key]
                finalize(storage, self._gone, key)
        self.peak = max(self.peak, self.live)

    def _gone(self, key: int) -> None:
        self.live -= self.sizes.pop(key)
