"""The real TRL loop with our model, on a handful of phantom rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, concatenate_datasets

from qoq_lib.data.phantom import make_phantom
from qoq_lib.evaluation.predict import predict
from qoq_lib.model.loading import AlignmentPlan, load_size, tiny_model
from qoq_lib.training import estimators
from qoq_lib.training.align import AlignmentMix, AnswerCollator, align
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.drpo import Advantages, DomainStatistics
from qoq_lib.training.estimators import Rewards
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.launch import train
from qoq_lib.training.methods import Method, load_method
from qoq_lib.training.monitoring.log import read_log
from qoq_lib.training.rewards import COMPONENTS
from qoq_lib.training.rollouts import RolloutWriter, read_rollouts


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Eight training questions, half of them on ECGs."""
    train = make_phantom(200, seed=1).filter(lambda s: s == "train", input_columns="split")
    ecgs = train.filter(lambda d: d == "ecg", input_columns="domain").select(range(4))
    images = train.filter(lambda d: d != "ecg", input_columns="domain").select(range(4))
    return concatenate_datasets([ecgs, images])


def small_size(**changes: Any) -> Any:
    size = load_size("tiny")
    plan = {"steps": 2, "questions_per_step": 4, "rollouts": 2, "micro_batch": 8} | changes
    size.training = size.training.model_copy(update=plan)
    return size


def trained(start: Path, rows: Dataset, out: Path, method: Method, **changes: Any) -> pd.DataFrame:
    out.mkdir()
    job = TrainingJob(start=start, size=small_size(**changes), method=method)
    return train(job, rows, out)[2]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    save_checkpoint(*tiny_model(0), folder)
    return folder


@pytest.mark.parametrize("name", ["drpo", "grpo"])
def test_two_steps_leave_weights_log_and_every_rollout(
    start: Path, rows: Dataset, tmp_path: Path, name: str
) -> None:
    log = trained(start, rows, tmp_path / "run", load_method(name))
    assert len(log) == 2
    pd.testing.assert_frame_equal(read_log(tmp_path / "run"), log)
    rollouts = read_rollouts(tmp_path / "run" / "rollouts")
    assert len(rollouts) == 2 * 4 * 2
    assert (rollouts.groupby(["step", "id"]).size() % 2 == 0).all()
    told = rollouts.drop(columns=["model_revision", "reasoning", "reward_length", "ecg_ref"])
    assert told.notna().all(axis=None)
    assert (rollouts["ecg_ref"].notna() == (rollouts["domain"] == "ecg")).all()
    assert (rollouts["image_ref"].str.len() == (rollouts["domain"] != "ecg")).all()
    assert set(rollouts["finish_reason"]) <= {"stop", "length"}
    assert (tmp_path / "run" / "checkpoints" / "trained" / "config.json").exists()
    assert not (tmp_path / "run" / "checkpoints" / "training").exists()


def test_the_kl_of_the_first_step_is_exactly_zero(
    start: Path, rows: Dataset, tmp_path: Path
) -> None:
    # Reference pass unshuffled, policy pass shuffled and split: equal only if each row has its own
    # images and ECGs in both.
    log = trained(start, rows, tmp_path / "run", load_method("drpo"), beta=0.1, micro_batch=4)
    assert log["kl"].iloc[0] == 0.0


def test_damping_is_told_each_rollouts_kl_to_the_reference(
    start: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def spy(batch: Rewards, domains: Sequence[str], state: DomainStatistics) -> Advantages:
        told.append(batch.kl)
        return estimators.drpo(batch, domains, state)

    monkeypatch.setitem(estimators.ESTIMATORS, "drpo", spy)
    # An untrained policy earns nothing; with this it has something to learn.
    monkeypatch.setitem(COMPONENTS, "accuracy", lambda text, answer, row: len(text) % 7 / 7)
    trained(start, rows, tmp_path / "run", load_method("drpo_damped"), beta=0.1, steps=3)
    assert [kl.shape for kl in told] == [(4, 2)] * 3
    assert (told[0] == 0).all()
    assert (told[2] > 0).all() and np.isfinite(told[2]).all()


def test_alignment_lowers_its_loss_and_reaches_the_ecg_path(rows: Dataset, tmp_path: Path) -> None:
    model, processor = tiny_model(0)
    before = model.model.ecg_projector.fc2.weight.detach().clone()
    plan = AlignmentPlan(
        naming_steps=10, naming_batch=8, answering_steps=20, answering_batch=8, learning_rate=1e-3
    )
    log = align(model, processor, rows, rows, plan, style="brief", seed=0, out=tmp_path)
    answering = log[log["phase"] == "answering"]["loss"]
    assert answering.iloc[-1] < answering.iloc[0]
    assert not torch.equal(before, model.model.ecg_projector.fc2.weight)
    predictions = predict(model, processor, rows, style="brief", max_new_tokens=4)
    assert list(predictions["id"]) == list(rows["id"])


def test_layers_computed_twice_to_save_memory_teach_the_same(rows: Dataset, tmp_path: Path) -> None:
    plan = AlignmentPlan(
        naming_steps=2, naming_batch=4, answering_steps=2, answering_batch=4, learning_rate=1e-3
    )
    weights = []
    for checkpointing in (False, True):
        model, processor = tiny_model(0)
        taught: dict[str, Any] = {"style": "brief", "seed": 0, "out": tmp_path}
        align(model, processor, rows, rows, plan, **taught, checkpointing=checkpointing)
        assert not model.is_gradient_checkpointing
        weights.append(torch.cat([weight.flatten() for weight in model.parameters()]))
    assert torch.allclose(*weights, atol=1e-6)


def test_only_the_answer_is_taught(rows: Dataset, tiny: Any) -> None:
    _, processor = tiny
    views = [dict(row) for row in rows]
    example = AlignmentMix(views, views, 4, 0)[0]
    labels = AnswerCollator(processor, "brief")([example])["labels"][0]
    taught = processor.tokenizer.decode(labels[labels >= 0])
    assert taught == f"\\boxed{{{example['answers'][0]}}}<|im_end|>"


def test_an_alignment_example_depends_on_seed_and_index_alone(rows: Dataset) -> None:
    views = [dict(row) for row in rows]
    first, again, other = (AlignmentMix(views, views, 9, seed) for seed in (0, 0, 1))
    pick = lambda mix: [(mix[i]["row"]["id"], tuple(mix[i]["answers"])) for i in range(9)]  # noqa: E731
    assert pick(first) == pick(again) != pick(other)


def test_an_interrupted_training_resumes_from_its_checkpoint_and_says_so(
    start: Path,
    rows: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    method, size, out = load_method("drpo"), small_size(steps=4), tmp_path / "run"
    write = RolloutWriter.write

    def stop_at_three(writer: RolloutWriter, step: int, records: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt
        write(writer, step, records)

    job = TrainingJob(start=start, size=size, method=method, save_minutes=1e-9)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RolloutWriter, "write", stop_at_three)
        train(job, rows, out)
    assert not (out / "checkpoints" / "trained").exists()
    assert read_log(out)["step"].tolist() == [1, 2]
    _, _, log = train(job, rows, out)
    assert "Resuming from checkpoint-2." in capsys.readouterr().out
    assert sorted(read_rollouts(out / "rollouts")["step"].unique()) == [1, 2, 3, 4]
    assert log["step"].tolist() == read_log(out)["step"].tolist() == [1, 2, 3, 4]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RolloutWriter, "write", stop_at_three)
        other = {"size": small_size(steps=30), "save_minutes": 60.0}
        train(job.model_copy(update=other), rows, out)
    assert read_log(out).empty  # of a training that saved no checkpoint, not of the one before
