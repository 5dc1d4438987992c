"""Where else the log of a training goes: TensorBoard and trackio, both optional."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_long_runs import job_of

from qoq_lib.data.assemble import assemble
from qoq_lib.data.phantom import make_phantom
from qoq_lib.runs import project_root
from qoq_lib.training import distributed
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.job import TrainingError
from qoq_lib.training.launch import train
from qoq_lib.training.monitoring import trackers


@pytest.fixture
def aligned(tiny: tuple[Any, Any], tmp_path: Path) -> Path:
    save_checkpoint(*tiny, tmp_path / "start")
    return tmp_path / "start"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_tracker_that_is_not_installed_is_refused_by_name(
    aligned: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    job = job_of(aligned).model_copy(update={"tracker": "trackio"})
    with pytest.raises(TrainingError, match="pip install trackio.* or set tracker to none"):
        train(job, make_phantom(180, seed=1), run)


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio"])
def test_a_tracker_gets_the_log_under_the_run_s_id(aligned: Path, run: Path, tracker: str) -> None:
    pytest.importorskip(tracker)
    assemble("phantom", run / "data", rows=240, seed=0)
    config = job_of(aligned, steps=2).model_copy(update={"tracker": tracker}).save(run)
    done = subprocess.run(
        [sys.executable, "-m", distributed.MODULE, "--config", str(config)],
        cwd=project_root(),
        env=os.environ | {"TRACKIO_DIR": str(run / "trackio")},  # read when it is imported
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if tracker == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board = EventAccumulator(str(run / "tensorboard")).Reload()
        assert [event.step for event in board.Scalars("train/reward")] == [1, 2]
    else:
        assert list((run / "trackio").glob("qoq-med*"))
