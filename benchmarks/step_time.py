"""Where the time of a training step goes: ``DRPOTrainer`` beside TRL's own ``GRPOTrainer``.

    python benchmarks/step_time.py                                # tiny, on the CPU
    python benchmarks/step_time.py --size 7b --json 7b.json       # on one GPU
    python benchmarks/step_time.py --record 7b.json               # adds it to docs/gpu_results.md

Same random weights, questions, settings and rewards for both; blocks of steps taken in turn, after
one step each that is not counted; every rollout has exactly ``--new-tokens`` new tokens. Prints a
table, and writes JSON after every block, so that a run cut short has results too. On a GPU the
table is also added to ``docs/gpu_results.md``; ``--record`` is for what another machine measured.
What a part is and how operations are counted stands in
``benchmarks/step/clock.py`` and ``work.py``.
"""

import argparse
import gc
import json
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from datasets import disable_progress_bars
from step.report import PAGE, Result, record, summarise, table
from step.trainers import PromptError, Settings, Timed, make_trainers
from step.work import device_limits

from qoq_lib.model.loading import load_size
from qoq_lib.runs import Environment, write_json_atomic
from qoq_lib.training.generation.engines import check_engine
from qoq_lib.training.job import TrainingError

TINY = Settings("tiny", 8, 8, prompt_tokens=96, new_tokens=16, micro_batch=64, steps=2)
LARGE = Settings("7b", 16, 8, prompt_tokens=1000, new_tokens=256, micro_batch=8, steps=1)


class Bench:
    """Both trainers on one device, their blocks, and what came of them so far in ``result``."""

    def __init__(self, settings: Settings, out: Path) -> None:
        size = load_size(settings.size)
        self.settings = settings
        on_gpu = size.needs_gpu and torch.cuda.is_available()
        self.device = torch.device("cuda:0" if on_gpu else "cpu")
        self.trainers = make_trainers(settings, self.device, out)
        work = next(iter(self.trainers.values())).work
        limits = device_limits(self.device, getattr(torch, size.dtype))
        bound = work.decoding_bound(
            limits,
            settings.questions,
            settings.rollouts,
            settings.prompt_tokens,
            settings.new_tokens,
        )
        self.result: Result = _facts(settings, self.device) | {
            "limits": asdict(limits),
            "decoding_bound": bound,
            "failures": {},
            "warm_up_s": {},
            "blocks": [],
        }
        self._held = {name: _trained_bytes(each) for name, each in self.trainers.items()}

    def block(self, name: str, steps: int) -> dict[str, Any] | None:
        """Train ``steps`` steps; ``None`` when the GPU's memory is too small for this trainer."""
        if name not in self.trainers:
            return None
        timed, before = self.trainers[name], self._settle()
        timed.watch.steps.clear()
        timed.trainer.args.max_steps = steps
        timed.trainer._last_loaded_step = -1  # the weights have changed, though steps count anew
        try:
            timed.trainer.train()
        except torch.OutOfMemoryError:
            del self.trainers[name], timed
            self.result["failures"][name] = "out of GPU memory: lower --questions or --micro-batch."
            return None
        peak = self._peak(name)
        self._held[name] += self._settle() - before
        return {"trainer": name, "peak_gib": peak, "steps": list(timed.watch.steps)}

    def _settle(self) -> int:
        """Bytes in use on the GPU, all that is unused given back; peaks count from here."""
        gc.collect()
        if self.device.type != "cuda":
            return 0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def _peak(self, name: str) -> float | None:
        """Most GiB in use, less what the other trainer keeps between its blocks."""
        if self.device.type != "cuda":
            return None
        others = sum(held for other, held in self._held.items() if other != name)
        return (torch.cuda.max_memory_allocated() - others) / 2**30


def _trained_bytes(timed: Timed) -> int:
    weights = timed.trainer.model.parameters()
    return sum(each.numel() * each.element_size() for each in weights if each.requires_grad)


def _facts(settings: Settings, device: torch.device) -> Result:
    git = Environment.collect().git
    commit = "unknown" if git["sha"] is None else git["sha"][:10] + "+" * git["dirty"]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": commit,
        "device": name,
        "threads": torch.get_num_threads(),
        "settings": asdict(settings),
    }


def measure(
    settings: Settings, pairs: int, minutes: float, save: Callable[[Result], Any]
) -> Result:
    """Up to ``pairs`` of blocks within ``minutes``; ``save`` gets the result after every block."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(settings, Path(scratch))
        names = list(bench.trainers)
        for name in names:
            start = time.monotonic()
            bench.block(name, 1)
            bench.result["warm_up_s"][name] = time.monotonic() - start
        longest = 0.0
        for pair in range(pairs):
            start = time.monotonic()
            if pair and start - began + longest > 60 * minutes:
                break
            for name in names[:: -1 if pair % 2 else 1]:
                _add(bench, name, save)
            longest = max(longest, time.monotonic() - start)
    return bench.result


def _add(bench: Bench, name: str, save: Callable[[Result], Any]) -> None:
    block = bench.block(name, bench.settings.steps)
    result = bench.result
    result["blocks"] += [block] if block else []
    result["peak_rss_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result["summary"] = summarise(result)
    save(result)


def read_arguments(arguments: list[str]) -> tuple[argparse.Namespace, Settings]:
    """Options, and the settings of the size with what the options change of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="tiny", choices=["tiny", "3b", "7b", "32b"])
    parser.add_argument("--engine", default="transformers", choices=["transformers", "vllm"])
    for field in fields(Settings)[1:-1]:
        name = field.name.replace("_", "-")
        small, large = getattr(TINY, field.name), getattr(LARGE, field.name)
        note = f"tiny: {small}, else {large}" if small != large else f"{small}"
        parser.add_argument(f"--{name}", type=int, help=f"default {note}")
    parser.add_argument("--pairs", type=int, default=12, help="most pairs of blocks")
    parser.add_argument("--minutes", type=float, default=8, help="begin no block that ends later")
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    parser.add_argument("--record", type=Path, help="add this JSON to the page; measure nothing")
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    chosen = {field.name: given[field.name] for field in fields(Settings) if field.name in given}
    settings = replace(TINY if options.size == "tiny" else LARGE, **chosen)
    if load_size(options.size).needs_gpu and not torch.cuda.is_available():
        parser.error(f"--size {options.size} needs an NVIDIA GPU and none is visible: use tiny.")
    try:
        check_engine(settings.engine, "drpo", "")
    except TrainingError as error:
        parser.error(str(error))
    if settings.questions * settings.rollouts % settings.micro_batch:
        parser.error("--micro-batch must divide --questions x --rollouts.")
    return options, settings


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and keep the results."""
    given = sys.argv[1:] if arguments is None else arguments
    options, settings = read_arguments(given)
    if options.record:
        record(PAGE, json.loads(options.record.read_text(encoding="utf-8")))
        return

    def save(result: Result) -> None:
        result["command"] = shlex.join(["python", "benchmarks/step_time.py", *given])
        if options.json:
            write_json_atomic(options.json, result)

    disable_progress_bars()
    try:
        result = measure(settings, options.pairs, options.minutes, save)
    except PromptError as error:
        sys.exit(f"--prompt-tokens {settings.prompt_tokens}: {error}")
    print(table(result))
    if result["device"] != "CPU":
        record(PAGE, result)


if __name__ == "__main__":
    main()
