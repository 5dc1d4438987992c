"""A diagnosis that stands in the ECG alone is learnt by RL, and not when ECGs change places."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from qoq_lib.data.example import FEATURES
from qoq_lib.data.phantom import make_phantom
from qoq_lib.model.loading import AlignmentPlan, load_size, tiny_model
from qoq_lib.training.align import align
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.launch import train
from qoq_lib.training.methods import load_method

ROWS, STEPS = 48, 60


def square_wave(cycles_per_second: float, rng: np.random.Generator) -> list[list[float]]:
    """Twelve leads of 10 s at 500 Hz, each with its own phase, height and noise."""
    seconds = np.arange(5000) / 500
    leads = [
        np.sign(np.sin(2 * np.pi * cycles_per_second * (seconds + rng.uniform())))
        * rng.uniform(0.5, 1)
        + rng.normal(0, 0.1, 5000)
        for _ in range(12)
    ]
    return np.stack(leads).astype("float32").tolist()


def questions(kind: str, names: tuple[str, str]) -> Dataset:
    """Slow and fast waves in turn; ``names`` are the two answers, which nothing else tells."""
    drawn = make_phantom(200, seed=1)
    model = next(row for row in drawn if row["domain"] == "ecg" and row["split"] == "train")
    rng = np.random.default_rng(0)
    rows = []
    for index in range(ROWS):
        change = {
            "id": f"{kind}-{index}",
            "patient_id": f"p{index}",
            "ecg": square_wave((1.0, 3.0)[index % 2], rng),
            "question": f"ECG: which {kind}?\nOptions: {'; '.join(names)}",
            "options": list(names),
            "answers": [names[index % 2]],
            "report": None,
        }
        rows.append(model | change)
    return Dataset.from_list(rows, features=FEATURES)


def shuffled(rows: Dataset) -> Dataset:
    """The same rows, each with another row's ECG."""
    order = np.random.default_rng(1).permutation(len(rows))
    return Dataset.from_list(
        [row | {"ecg": rows[int(other)]["ecg"]} for row, other in zip(rows, order, strict=True)],
        features=FEATURES,
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that sees the two waves, knows the format, and is right a little more than half."""
    folder = tmp_path_factory.mktemp("start")
    model, processor = tiny_model(0)
    perception = questions("pattern is visible", ("steady narrow beats", "irregular beats"))
    plan = AlignmentPlan(
        naming_steps=80,
        naming_batch=16,
        answering_steps=80,
        answering_batch=16,
        learning_rate=1e-3,
    )
    align(
        model,
        processor,
        perception,
        diagnoses(),
        plan,
        style="brief",
        seed=0,
        out=folder / "trainer",
    )
    save_checkpoint(model, processor, folder / "model")
    return folder / "model"


def diagnoses() -> Dataset:
    return questions("diagnosis", ("sinus rhythm", "atrial fibrillation"))


def last_reward(start: Path, rows: Dataset, out: Path) -> float:
    size: Any = load_size("tiny")
    plan: dict[str, Any] = {"steps": STEPS, "questions_per_step": 16, "rollouts": 8}
    plan |= {"micro_batch": 128, "learning_rate": 1e-3}
    size.training = size.training.model_copy(update=plan)
    job = TrainingJob(start=start, size=size, method=load_method("grpo"))
    log = train(job, rows, out)[2]
    return float(log["reward"].tail(10).mean())


@pytest.mark.slow
def test_rl_learns_from_each_rows_own_ecg(start: Path, tmp_path: Path) -> None:
    # A blind policy in the right format earns .2 + .6 / 2 = .5, a perfect one .8: without a lesion
    # there is no IoU to earn.
    assert last_reward(start, diagnoses(), tmp_path / "own") > 0.65
    assert last_reward(start, shuffled(diagnoses()), tmp_path / "shuffled") < 0.58
