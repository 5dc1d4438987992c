"""Seconds and operations of a training step, part by part, of any ``GRPOTrainer``.

Parts are own time: a part inside another is taken out of the outer one, so the parts of a step sum
to the step. On a GPU every change of part waits for the device, else work would be charged to
whoever waits for its result.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from qoq_lib.training.sharing import backbone_of
from step.work import Work, pairs_seen

PARTS = {
    "prompts": "reading prompts and images",
    "prefill": "generation: the prompts' forward pass",
    "decoding": "generation: the new tokens",
    "weight sync": "weights to the engine",
    "rewards": "rewards",
    "DRPO": "DRPO's advantages",
    "traces": "writing traces",
    "log-probabilities": "old and reference log-probabilities",
    "forward": "the policy's log-probabilities, with gradients",
    "backward": "backward, recomputed activations included",
    "optimizer": "clipping and the optimizer's step",
    "other": "all else",
}
MODEL_PARTS = ("prefill", "log-probabilities", "forward")

PartName = str | Callable[[], str]


def log_probability_part() -> str:
    """The policy's pass has gradients, the old and the reference policy's have none."""
    return "forward" if torch.is_grad_enabled() else "log-probabilities"


METHODS: dict[str, PartName] = {
    "_tokenize_prompts": "prompts",
    "_generate_single_turn": "decoding",
    "_calculate_rewards": "rewards",
    "_get_per_token_logps_and_entropies": log_probability_part,
}
"""Of every ``GRPOTrainer``, with the part each belongs to."""

OWN_METHODS: dict[str, PartName] = {"_replace_advantages": "DRPO", "_keep_rollouts": "traces"}
"""Of ``DRPOTrainer`` besides."""


class Stopwatch:
    """Collects ``steps``, one ``{"seconds": {part: s}, "flops": {pass: n}}`` per optimiser step.

    ``flops`` has the passes of ``MODEL_PARTS``, ``backward`` and ``recomputation``.
    """

    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], Any] = (
            partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
        )
        self.steps: list[dict[str, dict[str, float]]] = []
        self.restart()

    def restart(self) -> None:
        """Begin a step; what was timed of an unfinished one is dropped."""
        self._open: list[str] = ["other"]
        self._seconds: dict[str, float] = defaultdict(float)
        self.flops: dict[str, float] = defaultdict(float)
        self._wait()
        self._mark = time.perf_counter()

    def close_step(self) -> None:
        """The step is done; the next begins now."""
        self._charge()
        self.steps.append({"seconds": dict(self._seconds), "flops": dict(self.flops)})
        self.restart()

    @property
    def part(self) -> str:
        """The part that runs now."""
        return self._open[-1]

    def enter(self, part: str) -> None:
        """From here on time belongs to ``part``."""
        self._charge()
        self._open.append(part)

    def leave(self) -> None:
        """Back to the part around this one."""
        self._charge()
        self._open.pop()

    @contextmanager
    def within(self, part: PartName) -> Iterator[None]:
        """The block belongs to ``part``."""
        self.enter(part if isinstance(part, str) else part())
        try:
            yield
        finally:
            self.leave()

    def _charge(self) -> None:
        self._wait()
        now = time.perf_counter()
        self._seconds[self.part] += now - self._mark
        self._mark = now


def watched(work: Callable[..., Any], part: PartName, watch: Stopwatch) -> Callable[..., Any]:
    """``work``, timed as ``part``."""

    def timed_work(*args: Any, **kwargs: Any) -> Any:
        with watch.within(part):
            return work(*args, **kwargs)

    return timed_work


def timed(kind: type, methods: Mapping[str, PartName], watch: Stopwatch) -> type:
    """A subclass of ``kind`` whose ``methods`` are timed; a method it lacks is an error."""
    named = {name: watched(getattr(kind, name), part, watch) for name, part in methods.items()}
    return type(kind.__name__, (kind,), named)


class Steps(TrainerCallback):
    """Bounds of a step and of the optimizer's part of it.

    A step ends where the trainer says so and the next one begins there: fetching its questions and
    logging the one before belong to it.
    """

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The first step begins with the data loader's start."""
        self.watch.restart()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Clipping, just before, is timed by ``attach``."""
        self.watch.enter("optimizer")

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimizer is done."""
        self.watch.leave()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """One step more."""
        self.watch.close_step()


def attach(trainer: GRPOTrainer, watch: Stopwatch, work: Work) -> None:
    """Time what is no method of the trainer: the model's passes, backward, optimizer, engine."""
    accelerator = trainer.accelerator
    accelerator.backward = watched(accelerator.backward, "backward", watch)
    accelerator.clip_grad_norm_ = watched(accelerator.clip_grad_norm_, "optimizer", watch)
    if trainer.use_vllm:
        engine = trainer.vllm_generation
        engine.sync_weights = watched(engine.sync_weights, "weight sync", watch)
    trainer.add_callback(Steps(watch))
    model = accelerator.unwrap_model(trainer.model)
    backbone = backbone_of(model)
    backbone.register_forward_pre_hook(partial(_before, watch), with_kwargs=True)
    backbone.register_forward_hook(partial(_after, watch, work), with_kwargs=True)
    model.get_output_embeddings().register_forward_hook(partial(_after_head, watch, work))


def _reads_prompt(watch: Stopwatch, inputs: Mapping[str, Any]) -> bool:
    """Whether this pass of generation reads a prompt and not the one token before the next."""
    if torch.compiler.is_compiling() or watch.part != "decoding":
        return False
    return bool(_width(inputs) > 1)


def _width(inputs: Mapping[str, Any]) -> int:
    given = inputs.get("input_ids")
    return (inputs["inputs_embeds"] if given is None else given).shape[1]


def _before(watch: Stopwatch, module: Any, args: tuple, inputs: Mapping[str, Any]) -> None:
    if _reads_prompt(watch, inputs):
        watch.enter("prefill")


def _after(
    watch: Stopwatch, work: Work, module: Any, args: tuple, inputs: Mapping[str, Any], output: Any
) -> None:
    if torch.compiler.is_compiling() or watch.part not in MODEL_PARTS:
        return
    rows, width = output.last_hidden_state.shape[:2]
    grids = inputs.get("image_grid_thw")
    pairs = pairs_seen(inputs.get("attention_mask"), rows, width)
    watch.flops[watch.part] += work.backbone(rows * width, pairs, grids)
    if watch.part == "forward":
        watch.flops["backward"] += work.backbone_backward(rows * width, pairs, grids)
        watch.flops["recomputation"] += work.recomputed(rows * width, pairs)
    if watch.part == "prefill":
        watch.leave()


def _after_head(watch: Stopwatch, work: Work, module: Any, args: tuple, logits: Any) -> None:
    if torch.compiler.is_compiling() or watch.part not in MODEL_PARTS:
        return
    tokens = logits.shape[:-1].numel()
    watch.flops[watch.part] += work.head(tokens)
    if watch.part == "forward":
        watch.flops["backward"] += work.head_backward(tokens)
