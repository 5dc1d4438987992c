"""What a training will need, before anything is loaded: parameters, and memory by part."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from qoq_lib.data.frames import FRAMES
from qoq_lib.model.loading import ModelSize, image_area
from qoq_lib.training.job import Parallel, Rollout
from qoq_lib.training.methods import Method
from qoq_lib.training.planning.counting import Counts, count_parameters, size_config
from qoq_lib.training.planning.memory import (
    MOMENTS,
    Load,
    Needs,
    copy_needs,
    rollout_needs,
    update_needs,
    weight_needs,
)

GIB = 2**30
TEXT_TOKENS = 512  # of a prompt beside its media: report, question, options, answer format
UNKNOWN_ANSWER = 64  # tokens, where the data decide and are not there yet


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

    def __str__(self) -> str:
        """Three lines for a person."""
        plan, counts = self.size.training, self.counts
        worst = self.table.loc["sum"].idxmax()
        gpus = (
            f"{self.processes} process(es), {self.parallel}" if self.processes > 1 else "1 process"
        )
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
        # As ``reference.prepare_reference`` lays it out.
        share = processes if parallel == "fsdp2" else 1
        held = (counts.frozen_bytes + counts.trained_bytes) / share
        parts.append({"reference policy": dict.fromkeys(MOMENTS, held)})
    if rolls and rollout == "transformers":
        # As ``engines.transformers_engine`` decides where a GPU is.
        kept = size.needs_gpu and not shared_out
        parts.append(rollout_needs(config, load, number, kept=kept))
    parts.append(update_needs(config, load, number, size.trainable, checkpointing=size.needs_gpu))
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
        answer = UNKNOWN_ANSWER  # labels, without reasoning
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
