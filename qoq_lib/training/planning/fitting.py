"""Whether a plan fits a GPU, and which settings would."""

from collections.abc import Iterator
from typing import Any, Literal

import torch

from qoq_lib.model.loading import ModelSize, check_machine, image_area
from qoq_lib.model.overrides import override
from qoq_lib.model.tuning import Tuning, check_tuning
from qoq_lib.training.job import TrainingError
from qoq_lib.training.methods import Method
from qoq_lib.training.planning.plan import GIB, Plan, make_plan

SPARE = 0.1  # share of a GPU left to CUDA itself and to fragmentation: a choice, not measured
VLLM_SHARE = 0.3  # of each GPU, taken by a vLLM that runs beside training: TRL's default
SHORT_ANSWER = 256  # tokens: less room than this is no advice for a model that reasons


def plan_here(
    size: ModelSize,
    method: Method | None = None,
    tuning: Tuning | Literal["auto"] = "auto",
    **how: Any,
) -> Plan:
    """The plan for this machine's GPU, which must hold it; sets ``size.tuning``.

    ``auto`` is the first of full, LoRA and QLoRA that fits the GPU; where a size needs none, its
    own. ``how`` is as in ``make_plan``. A CPU's memory is not looked at.

    Raises:
        LoadError, HubError, TuningError: as ``check_machine``.
        TrainingError: as ``check_fits``.
    """
    size.tuning = size.tuning if tuning == "auto" else tuning
    check_machine(size)
    plan = make_plan(size, method, **how)
    if not size.needs_gpu:
        return plan
    free, total = torch.cuda.mem_get_info()
    if tuning == "auto":
        size.tuning = choose_tuning(plan, total)
        check_tuning(size.tuning, size.trainable)
        plan = make_plan(size, method, **how)
    check_fits(plan, free)
    return plan


def check_fits(plan: Plan, available: int) -> None:
    """Refuse a plan that needs more than ``available`` bytes on each GPU, less what is kept spare.

    Raises:
        TrainingError: with the mildest change that would make it fit, where there is one.
    """
    if _fits(plan, available):
        return
    ways = (_smaller(plan), _more_gpus(plan))
    firsts = [next((words for words, p in way if _fits(p, available)), None) for way in ways]
    advice = ", or ".join(words for words in firsts if words) or "use a smaller model_size"
    raise TrainingError(
        f"{'Training' if plan.method else 'Aligning'} {plan.size.name} ({plan.size.tuning}) takes "
        f"about {plan.peak / GIB:.1f} GiB of memory in each process, and of the "
        f"{available / GIB:.1f} GiB there it may fill {_usable(plan) * available / GIB:.1f}: "
        f"{advice}."
    )


def choose_tuning(plan: Plan, available: int) -> Tuning:
    """The first of full, LoRA and QLoRA that fits ``available`` bytes, or the last of them.

    An alignment has no QLoRA: its adapters are merged into the weights, which 4 bits do not allow.
    """
    kinds: list[Tuning] = ["full", "lora", "qlora"] if plan.method else ["full", "lora"]
    fits = (kind for kind in kinds if _fits(_changed(plan, f"tuning={kind}"), available))
    return next(fits, kinds[-1])


def _usable(plan: Plan) -> float:
    """Share of a GPU's memory that the training may fill."""
    return 1 - SPARE - (VLLM_SHARE if plan.rollout == "vllm" else 0)


def _fits(plan: Plan, available: int) -> bool:
    return plan.peak <= _usable(plan) * available


def _smaller(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Plans that ask for less, the mildest change first, and how to ask for them."""
    knobs = [[f"{name}={value}" for value in values] for name, values in _knobs(plan)]
    singles = [text for knob in knobs for text in knob]
    pairs = [
        f"{one}, {two}"
        for n, knob in enumerate(knobs)
        for one in knob
        for k in knobs[n + 1 :]
        for two in k
    ]
    quantised = plan.method and plan.parallel == "ddp" and plan.size.tuning != "qlora"
    for text in singles:
        yield f"set overrides to '{text}'", _changed(plan, text)
    if quantised:
        yield "set tuning to 'qlora'", _changed(plan, "tuning=qlora")
    for text in pairs:
        yield f"set overrides to '{text}'", _changed(plan, text)
    for text in [*singles, *pairs] if quantised else []:
        words = f"set tuning to 'qlora' and overrides to '{text}'"
        yield words, _changed(plan, f"tuning=qlora, {text}")


def _more_gpus(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """The plan shared out over more GPUs; an alignment runs on one."""
    for count in (2, 4, 8, 16, 32) if plan.method else ():
        passes = plan.size.training.questions_per_step * plan.size.training.rollouts / count
        if count > plan.processes and passes % plan.size.training.micro_batch == 0:
            words = f"train on {count} such GPUs with num_processes={count} and parallel='fsdp2'"
            yield words, _changed(plan, processes=count, parallel="fsdp2")


def _knobs(plan: Plan) -> list[tuple[str, list[int]]]:
    """Settings that memory depends on, and smaller values of each."""
    training, area, longest = plan.size.training, image_area(plan.size), plan.load.answer
    pixels = ("pixels.largest", [n for n in _halves(area.largest) if n >= 4 * area.smallest])
    if plan.method is None:
        batch = plan.size.alignment.answering_batch
        return [("alignment.answering_batch", _halves(batch)), pixels]
    micro = [n for n in range(training.micro_batch - 1, 0, -1) if training.micro_batch % n == 0]
    return [
        ("training.micro_batch", micro),
        pixels,
        ("training.questions_per_step", _halves(training.questions_per_step)),
        ("max_completion_length", [n for n in _halves(longest) if n >= SHORT_ANSWER]),
    ]


def _halves(number: int) -> list[int]:
    return [number >> times for times in range(1, number.bit_length())]


def _changed(plan: Plan, text: str = "", **how: Any) -> Plan:
    same = {"processes": plan.processes, "parallel": plan.parallel, "rollout": plan.rollout}
    return make_plan(override(plan.size, text), plan.method, **same | how)
