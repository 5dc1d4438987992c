"""What a training will need, before anything is loaded: parameters, memory, and whether it fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from qoq_lib.data.frames import FRAMES
from qoq_lib.model.loading import ModelSize, image_area
from qoq_lib.model.overrides import override
from qoq_lib.model.tuning import Tuning
from qoq_lib.training.counting import Counts, count_parameters, size_config
from qoq_lib.training.job import TrainingError
from qoq_lib.training.memory import (
    MOMENTS,
    Load,
    Needs,
    copy_needs,
    rollout_needs,
    update_needs,
    weight_needs,
)
from qoq_lib.training.methods import Method

Parallel = Literal["ddp", "fsdp2", "zero3"]
Rollout = Literal["transformers", "vllm", "vllm_server"]

GIB = 2**30
TEXT_TOKENS = 512  # of a prompt beside its media: report, question, options, answer format
UNKNOWN_ANSWER = 64  # tokens, where the data decide and are not there yet
SPARE = 0.1  # share of a GPU left to CUDA itself and to fragmentation: a choice, not measured
VLLM_SHARE = 0.3  # of each GPU, taken by a vLLM that runs beside training: TRL's default


@dataclass(frozen=True)
class Plan:
    """A training, or an alignment, and what one of its GPUs holds at each moment.

    The load is the largest the settings allow: every question with ``FRAMES`` images of the largest
    area, an ECG and ``TEXT_TOKENS`` tokens of text, every answer of the full length.

    Attributes:
        size, method: what is trained, and how; without a method it is notebook 02's alignment.
        processes, parallel, rollout: as in ``TrainingJob``.
        counts: parameters.
        load: what one GPU works on at once.
        needs: bytes by part and moment; a part that is not named at a moment needs none.
    """

    size: ModelSize
    method: Method | None
    processes: int
    parallel: Parallel
    rollout: Rollout
    counts: Counts
    load: Load
    needs: Needs

    @cached_property
    def table(self) -> pd.DataFrame:
        """GiB of one GPU: a row per part and their sum, a column per moment."""
        frame = pd.DataFrame(self.needs, index=list(MOMENTS)).T.fillna(0.0) / GIB
        frame.loc["sum"] = frame.sum()
        return frame

    @property
    def peak(self) -> int:
        """Bytes of one GPU at the worst moment."""
        return int(self.table.loc["sum"].max() * GIB)

    @property
    def usable(self) -> float:
        """Share of a GPU's memory that the training may fill."""
        return 1 - SPARE - (VLLM_SHARE if self.rollout == "vllm" else 0)

    def __str__(self) -> str:
        """Three lines for a person."""
        plan, counts = self.size.training, self.counts
        worst = self.table.loc["sum"].idxmax()
        gpus = f"{self.processes} process(es), {self.parallel}" if self.processes > 1 else "1 process"
        per_step = f"{plan.questions_per_step} questions x {plan.rollouts} rollouts a step; "
        return (
            f"{self.size.name}: {counts.trained / 1e6:,.1f} of {counts.total / 1e6:,.1f} million "
            f"parameters are trained ({self.size.tuning}); {gpus}.\n"
            f"{per_step if self.method else ''}step time: not measured.\n"
            f"Estimated peak memory: {self.peak / GIB:.1f} GiB in each process ({worst})."
        )


def make_plan(
    size: ModelSize,
    method: Method | None = None,
    *,
    processes: int = 1,
    parallel: Parallel = "ddp",
    rollout: Rollout = "transformers",
) -> Plan:
    """The plan of training ``size`` with ``method``, or, without one, of aligning it.

    Nothing is downloaded for the published bases; of another, ``config.json`` and the processor's
    files are read where ``pixels`` is left to it.

    Raises:
        LoadError: the base cannot be had.
        TuningError: what ``size`` says of tuning cannot be done.
    """
    counts, config = count_parameters(size), size_config(size)
    load = _load(size, method, processes, config.ecg_config.out_tokens)
    number = 2 if size.dtype == "bfloat16" else 4
    shared_out = processes > 1 and parallel != "ddp"
    rolls = method is not None and method.advantages is not None
    parts = [weight_needs(counts, processes, parallel, gather=rolls and rollout == "transformers")]
    if method is not None and size.tuning == "full" and _beta(size, method):
        parts.append({"reference policy": dict.fromkeys(MOMENTS, float(counts.frozen_bytes + counts.trained_bytes))})
    if rolls and rollout == "transformers":
        parts.append(rollout_needs(config, load, number))
    parts.append(update_needs(config, load, number, checkpointing=size.needs_gpu))
    if size.tuning == "full" and number == 2 and not shared_out:
        parts.append(copy_needs(config, counts.trained))
    return Plan(size, method, processes, parallel, rollout, counts, load, _merged(parts))


def _merged(parts: list[Needs]) -> Needs:
    needs: Needs = {}
    for part in parts:
        for name, moments in part.items():
            needs[name] = needs.get(name, {}) | moments
    return needs


def _beta(size: ModelSize, method: Method) -> float:
    return float(method.grpo.get("beta", size.training.beta))


def _load(size: ModelSize, method: Method | None, processes: int, ecg_tokens: int) -> Load:
    largest, plan = image_area(size).largest, size.training
    answer = size.max_completion_length or UNKNOWN_ANSWER
    prompt = TEXT_TOKENS + ecg_tokens + FRAMES * (largest // 28**2)
    patches = FRAMES * (largest // 14**2)
    if method is None or method.advantages is None:
        batch = size.alignment.answering_batch
        if method is not None:  # a pass has as many questions as it would have rollouts
            batch = min(plan.micro_batch, max(plan.questions_per_step // processes, 1))
        return Load(0, 0, prompt, answer, patches, 1, (batch, 1), batch * (prompt + answer))
    per_process = max(plan.questions_per_step * plan.rollouts // processes, 1)
    micro = min(plan.micro_batch, per_process)
    rows = per_process * method.updates_per_generation
    packed = _widest(per_process, micro, plan.rollouts)
    questions = -(-rows // plan.rollouts)
    scored = packed[0] * (1 + packed[1] * answer)
    return Load(questions, rows, prompt, answer, patches, 1, packed, scored)


def _widest(rows: int, micro: int, rollouts: int) -> tuple[int, int]:
    """Prompts, and rollouts behind each, of the largest pass that ``SharedPrompts`` lays out."""
    shapes = []
    for start in range(0, rows, micro):
        owners = [row // rollouts for row in range(start, min(start + micro, rows))]
        shapes.append((len(set(owners)), max(owners.count(owner) for owner in set(owners))))
    return max(shapes, key=lambda shape: (shape[0] * shape[1], shape[0]))


def check_fits(plan: Plan, available: int) -> None:
    """Refuse a plan that needs more than ``available`` bytes on each GPU, less what is kept spare.

    Raises:
        TrainingError: with the mildest change that would make it fit, where there is one.
    """
    if _fits(plan, available):
        return
    advice = next((words for words, other in _smaller(plan) if _fits(other, available)), None)
    raise TrainingError(
        f"{plan.size.name} ({plan.size.tuning}) needs about {plan.peak / GIB:.1f} GiB of memory in "
        f"each process, of {available / GIB:.1f} GiB of which it may fill "
        f"{plan.usable * available / GIB:.1f}: {advice or 'use a smaller model_size'}."
    )


def choose_tuning(plan: Plan, available: int) -> Tuning:
    """The first of full, LoRA and QLoRA that fits ``available`` bytes; QLoRA where none does."""
    tunings: tuple[Tuning, ...] = ("full", "lora")
    return next((kind for kind in tunings if _fits(_changed(plan, f"tuning={kind}"), available)), "qlora")


def _fits(plan: Plan, available: int) -> bool:
    return plan.peak <= plan.usable * available


def _smaller(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Plans with one change, the mildest first, and how to ask for it."""
    training, area = plan.size.training, image_area(plan.size)
    longest = plan.size.max_completion_length or 0
    micro = [n for n in _halves(training.micro_batch) if training.micro_batch % n == 0]
    if plan.method is None:
        knobs = [("alignment.answering_batch", _halves(plan.size.alignment.answering_batch))]
    else:
        knobs = [("training.micro_batch", [*micro, 1] if training.micro_batch > 1 else [])]
    knobs.append(("pixels.largest", [n for n in _halves(area.largest) if n >= 4 * area.smallest]))
    if plan.method is not None:
        knobs.append(("training.questions_per_step", _halves(training.questions_per_step)))
        knobs.append(("max_completion_length", [n for n in _halves(longest) if n >= 128]))
    for name, values in knobs:
        for value in values:
            text = f"{name}={value}"
            yield f"set overrides to {text!r}", _changed(plan, text)
    if plan.size.tuning == "full":
        yield "set tuning to 'lora'", _changed(plan, "tuning=lora")
    if plan.parallel == "ddp":
        yield "set tuning to 'qlora'", _changed(plan, "tuning=qlora")
    for count in (2, 4, 8, 16, 32):
        if count > plan.processes:
            words = f"train on {count} such GPUs with num_processes={count} and parallel='fsdp2'"
            yield words, _changed(plan, processes=count, parallel="fsdp2")


def _halves(number: int) -> list[int]:
    return [number >> times for times in range(1, number.bit_length())]


def _changed(plan: Plan, text: str = "", **how: Any) -> Plan:
    same = {"processes": plan.processes, "parallel": plan.parallel, "rollout": plan.rollout}
    return make_plan(override(plan.size, text), plan.method, **same | how)
