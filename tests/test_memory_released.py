"""What trained is gone from memory before the next needs it; only a full collection frees it."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pandas as pd
import pytest
import torch

from qoq_lib.model.loading import load_size
from qoq_lib.training import launch, stages
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.methods import load_method


@pytest.fixture(autouse=True)
def nothing_is_collected_by_chance() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Remains:
    """Leaves models behind as accelerate prepares them, and tells whether they are still there."""

    def __init__(self) -> None:
        self.left: list[weakref.ref] = []

    def leave(self, *_: Any, **__: Any) -> tuple[None, None, pd.DataFrame]:
        model: Any = torch.nn.Linear(1, 1)
        model.forward = MethodType(model.forward.__func__, model)
        self.left.append(weakref.ref(model))
        return None, None, pd.DataFrame()

    def are_there(self) -> bool:
        return any(model() is not None for model in self.left)


@pytest.fixture
def remains() -> Remains:
    remains = Remains()
    remains.leave()
    assert remains.are_there()
    return remains


def job(**changes: Any) -> TrainingJob:
    method = load_method("drpo")
    return TrainingJob(start=Path("start"), size=load_size("tiny"), method=method, **changes)


def test_of_an_alignment_nothing_stays_but_its_folder(
    remains: Remains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "align_base", remains.leave)
    stages.ensure_aligned({}, load_size("tiny"), tmp_path, 0)
    assert len(remains.left) == 2 and not remains.are_there()


def test_the_processes_that_are_started_find_the_memory_free(
    remains: Remains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def started(*_: Any) -> bool:
        seen.append(remains.are_there())
        return False

    monkeypatch.setattr(launch, "run_processes", started)
    with pytest.raises(SystemExit):
        launch.start(job(processes=2), None, tmp_path)
    assert seen == [False]


def test_of_a_training_in_this_process_the_model_alone_stays(
    remains: Remains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "train", remains.leave)
    launch.start(job(), None, tmp_path)
    assert len(remains.left) == 2 and not remains.are_there()
