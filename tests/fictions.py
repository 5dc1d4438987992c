"""Fictional rollouts, predictions and scores for the tests of figures and reports."""

from typing import Any

import pandas as pd

from qoq_lib.data.phantom import options
from qoq_lib.evaluation.metrics import evaluate
from qoq_lib.evaluation.training_runs import TrainingRun


def rollouts(domains: tuple[str, ...] = ("ct", "ecg"), steps: int = 6, **columns: Any) -> Any:
    """Four rollouts of one question per domain and step; ct is solved from step 4 on."""
    rows = []
    for step in range(1, steps + 1):
        for domain in domains:
            for sample in range(4):
                right = domain == "ct" and (step >= 4 or sample == 0)
                rows.append({"step": step, "id": f"{domain}/{step}", "domain": domain})
                rows[-1] |= {"sample": sample, "correct": right, "reward": float(right)}
                rows[-1] |= {"reward_accuracy": float(right), "reward_format": 1.0}
                rows[-1] |= {"dataset": f"set_{domain}"} | columns
    return pd.DataFrame(rows)


def training(run_id: str = "run", method: str = "drpo", seed: int = 0, **facts: Any) -> TrainingRun:
    """A finished training of the rollouts above, whose entropy halves in six logged steps."""
    log = pd.DataFrame({"step": range(1, 7), "entropy": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]})
    told = {"rollouts": rollouts(), "log": log, "status": "completed"} | facts
    return TrainingRun(run_id, method, seed, **told)


def predictions(domains: tuple[str, ...] = ("ct", "ecg"), right: float = 1.0) -> pd.DataFrame:
    """Two questions per diagnosis; the share ``right`` answered so, the rest not at all."""
    rows = []
    for domain in domains:
        labels = options(domain)
        for number, label in enumerate(labels * 2):
            said = f"\\boxed{{{label}}}" if number < right * 2 * len(labels) else "no $idea"
            rows.append({"id": f"{domain}/{number}", "domain": domain, "dataset": f"set_{domain}"})
            rows[-1] |= {"patient_id": str(number), "options": labels, "answers": [label]}
            rows[-1] |= {"completion": said}
    return pd.DataFrame(rows)


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other, each row a question of its own."""
    rows = pd.concat(tables, ignore_index=True)
    return rows.assign(id=[f"row {number}" for number in range(len(rows))])


def scores(**shares: float) -> dict[str, Any]:
    return {name: evaluate(predictions(right=share)) for name, share in shares.items()}
