"""Seconds and memory of writing a trace set, and of exploring one that does not fit a screen.

The run is made here: groups of eight rollouts, each completion some hundred words of its own, over
the phantom's questions, with the images and ECGs of as many cases as ``--cases``. Each measurement
runs in a process of its own; memory is its peak (resident, so mapped pages count, too), and in
parentheses what had been there before the work began, which is the libraries'.

    python benchmarks/traces.py --traces 100000
    python benchmarks/traces.py --traces 1000000 --cases 240
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from qoq_lib.data.assemble import assemble, load_assembled
from qoq_lib.publishing import agreement
from qoq_lib.publishing.explore import chosen, open_traces, trace_index
from qoq_lib.publishing.traces import write_traces
from qoq_lib.training.rollouts import RolloutWriter

GROUP, PER_STEP = 8, 2048
WORDS = (
    "the image shows a sharply bounded dense region beside normal tissue without effusion".split()
)


def main() -> None:
    """Measure and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=100_000)
    parser.add_argument("--cases", type=int, default=1200, help="rows of the phantom")
    parser.add_argument("--words", type=int, default=150, help="of a completion's reasoning")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run, out = Path(scratch, "run"), Path(scratch, "out")
        report("made the run", make_run, run, options.traces, options.cases, options.words)
        report("write_traces", write, run, out)
        report("opened, indexed, counted", explore, Path(scratch, "elsewhere"), str(out))
        report("the same, second time", explore, Path(scratch, "elsewhere"), str(out))


def report(label: str, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work`` in a fresh process and print what it took."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds, before, peak = pool.submit(measured, work, *arguments).result()
    print(f"{label:26} {seconds:8.1f} s   peak {peak:.2f} GB ({before:.2f} GB)", flush=True)


def measured(work: Callable[..., None], *arguments: Any) -> tuple[float, float, float]:
    """Seconds, and the peak of memory before and after in GB."""
    before, start = peak(), time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start, before, peak()


def peak() -> float:
    """Peak resident memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def make_run(run: Path, traces: int, cases: int, words: int) -> None:
    """A run folder with data and rollouts, as notebooks 01 and 03 leave it."""
    assemble("phantom", run / "data", rows=cases)
    rows = load_assembled(run / "data")["train"].remove_columns(["images", "mask", "ecg"]).to_list()
    writer = RolloutWriter(run / "rollouts", {"model": "m", "run_id": "run", "seed": 0})
    rng = random.Random(0)
    for step in range(1, traces // PER_STEP + 2):
        count = min(PER_STEP, traces - (step - 1) * PER_STEP)
        asked = [rng.choice(rows) for _ in range(-(-count // GROUP))]
        writer.write(
            step, [rollout(asked[n // GROUP], n % GROUP, rng, words) for n in range(count)]
        )


def rollout(row: dict[str, Any], sample: int, rng: random.Random, words: int) -> dict[str, Any]:
    """One sampled answer."""
    said = rng.choice(row["options"])
    thought = " ".join(rng.choice(WORDS) for _ in range(words))
    names = ("id", "domain", "dataset", "question", "options", "answers")
    right = [said] == row["answers"]
    return {name: row[name] for name in names} | {
        "image_ref": [],
        "sample": sample,
        "completion": f"<think>{thought}</think>\\boxed{{{said}}}",
        "reward": float(right),
        "advantage": 0.0,
        "correct": right,
        "finish_reason": "stop",
        "n_tokens": words,
    }


def write(run: Path, out: Path) -> None:
    """The traces of the run as a data set."""
    written = write_traces(run, out)
    print({config: written.rows(config) for config in written.configs})


def explore(run: Path, out: str) -> None:
    """What notebook 07 does before it draws."""
    traces = open_traces(run, out)
    index = trace_index(traces.rows)
    agreement.overview(index)
    groups = agreement.groups(index)
    wanted = chosen(index, outcome="wrong", domain="ct")
    traces.read(wanted.index[-1])
    traces.case(str(wanted["id"].iloc[-1]))
    print(f"{len(index):,} traces, {len(groups):,} groups, {len(wanted):,} wanted")


if __name__ == "__main__":
    main()
