"""The paper's whole epoch without a model: what a step costs at its start and at its end.

2.61 million questions x 5 rollouts in steps of 512 questions. Rewards are synthetic; each step
makes DRPO's advantages, keeps every rollout in parquet, and seals the statistics as a checkpoint
does. Then predictions are scored with intervals. Nothing is drawn by a model, so completions are
one short sentence: the files of a real run are as much larger as its completions are longer.

    OMP_NUM_THREADS=1 python benchmarks/paper_scale.py --json paper_scale.json

The rollouts, about half a gigabyte, go to a temporary folder and with it. Milliseconds are CPU
time of this process, so that a busy machine does not blur them; memory is what is resident, with
some 0.6 GB of libraries; "first" and "last" are medians over the first and last tenth of the steps.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from drpo_cost import QUESTIONS, ROLLOUTS, draw

from qoq_lib.evaluation.metrics import evaluate
from qoq_lib.runs import write_text_atomic
from qoq_lib.training.checkpoints import seal
from qoq_lib.training.drpo import PRESETS, Advantages, DomainStatistics, compute_advantages
from qoq_lib.training.rollouts import RolloutWriter

OPTIONS = ["no finding", "a mass", "a fracture", "an effusion"]
THOUGHT = "<think>The image shows a sharply bounded dense region.</think>\\boxed{%s}"
STAGES = ("advantages", "rollouts", "seal")


def main() -> None:
    """Replay, evaluate, print the table and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=2_610_000)
    parser.add_argument("--predictions", type=int, default=100_000, help="rows that are evaluated")
    parser.add_argument("--preset", choices=["paper", "recommended"], default="recommended")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        steps = replay(Path(scratch), options.questions, options.preset)
        disk = sum(file.stat().st_size for file in Path(scratch).rglob("*") if file.is_file())
    found = summary(steps) | {
        "questions": options.questions,
        "rollouts": options.questions * ROLLOUTS,
        "preset": options.preset,
        "disk_mb": disk / 1e6,
        "replay_minutes": (time.perf_counter() - began) / 60,
        "evaluation": evaluation(options.predictions),
    }
    print(table(found))
    if options.json:
        write_text_atomic(options.json, json.dumps(found, indent=2))


def replay(folder: Path, questions: int, preset: str) -> pd.DataFrame:
    """A row per step: milliseconds of each stage and memory in MB after it."""
    rng, config = np.random.default_rng(0), PRESETS[preset]
    statistics, writer = DomainStatistics(config), RolloutWriter(folder / "rollouts")
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    measured = []
    total = -(-questions // QUESTIONS)
    for step in range(1, total + 1):
        start = (step - 1) * QUESTIONS
        rewards, domains = draw(rng, min(QUESTIONS, questions - start))
        took, made = timed(compute_advantages, rewards, domains, config, statistics)
        rows = rollouts(start, rewards, domains, made)
        kept = timed(writer.write, step, rows)[0]
        sealed = timed(seal, checkpoint, statistics.state_dict())[0]
        measured.append((took, kept, sealed, memory()))
        if step % max(total // 10, 1) == 0:
            print(f"step {step:,} of {total:,}: {memory():,.0f} MB", flush=True)
    return pd.DataFrame(measured, columns=[*STAGES, "memory"])


def rollouts(
    start: int, rewards: np.ndarray, domains: list[str], made: Advantages
) -> list[dict[str, Any]]:
    """The rows that the trainer would keep of a step whose first question is number ``start``."""
    return [
        {
            "id": f"{domains[question]}/{start + question}",
            "domain": domains[question],
            "dataset": domains[question],
            "question": "What does the image show?",
            "options": OPTIONS,
            "answers": OPTIONS[1:2],
            "sample": sample,
            "completion": THOUGHT % OPTIONS[reward > 0.5],
            "reward_accuracy": reward,
            "reward": reward,
            "advantage": made.advantages[question, sample],
            "weight": made.weights[question],
            "cluster": made.clusters[question],
            "domain_temperature": made.domain_temperatures[domains[question]],
            "cluster_temperature": made.cluster_temperatures[question],
            "correct": reward > 0.5,
            "finish_reason": "stop",
            "n_tokens": 16,
        }
        for question, of_question in enumerate(rewards.tolist())
        for sample, reward in enumerate(of_question)
    ]


def evaluation(rows: int) -> dict[str, float]:
    """Seconds and peak memory of scoring ``rows`` predictions, two of each patient."""
    rng = np.random.default_rng(0)
    domains = draw(rng, rows)[1]
    right = rng.random(rows) < 0.6
    true, guess = rng.choice(OPTIONS, rows), rng.choice(OPTIONS, rows)
    predictions = pd.DataFrame(
        {
            "id": [str(row) for row in range(rows)],
            "domain": domains,
            "dataset": [f"{name}-{row % 3}" for row, name in enumerate(domains)],
            "patient_id": [str(row // 2) for row in range(rows)],
            "options": [OPTIONS] * rows,
            "answers": [[label] for label in true],
            "completion": [THOUGHT % label for label in np.where(right, true, guess)],
        }
    )
    seconds = timed(evaluate, predictions)[0] / 1000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"rows": rows, "seconds": seconds, "peak_mb": peak}


def summary(steps: pd.DataFrame) -> dict[str, Any]:
    """First and last tenth of the steps, their ratio, and the largest value."""
    tenth = max(len(steps) // 10, 1)
    first, last = steps[:tenth].median(), steps[-tenth:].median()
    columns = {"first": first, "last": last, "ratio": last / first, "largest": steps.max()}
    return {"steps": len(steps), "stages": pd.DataFrame(columns).to_dict("index")}


def table(found: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{found['questions']:,} questions x {ROLLOUTS} rollouts, {found['steps']:,} steps of "
        f"{QUESTIONS}, preset {found['preset']}: {found['replay_minutes']:.1f} minutes, "
        f"rollouts on disk {found['disk_mb']:,.0f} MB",
        f"{'':12} {'first':>8} {'last':>8} {'ratio':>6} {'largest':>8}",
    ]
    for name, told in found["stages"].items():
        label = "memory, MB" if name == "memory" else f"{name}, ms"
        lines.append(
            f"{label:12} {told['first']:8.1f} {told['last']:8.1f} {told['ratio']:6.2f} "
            f"{told['largest']:8.1f}"
        )
    scored = found["evaluation"]
    return "\n".join(
        [
            *lines,
            f"evaluation of {scored['rows']:,} rows with intervals: {scored['seconds']:.1f} s, "
            f"peak {scored['peak_mb']:,.0f} MB",
        ]
    )


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Milliseconds of CPU time, and what ``work`` gives."""
    start = time.process_time()
    result = work(*arguments)
    return 1000 * (time.process_time() - start), result


def memory() -> float:
    """Resident memory of this process in MB."""
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    main()
