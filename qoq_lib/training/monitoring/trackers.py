"""Where else the log of a training goes, for those who watch it there; off unless asked for."""

from importlib.util import find_spec
from pathlib import Path

from transformers import Trainer
from transformers.integrations import TensorBoardCallback, TrackioCallback

from qoq_lib.training.job import TrainingError

PROJECT = "qoq-med"


def check_tracker(name: str) -> None:
    """``TrainingError`` where the tracker is not installed."""
    if name != "none" and find_spec(name) is None:
        raise TrainingError(
            f"The tracker {name!r} is not installed: run 'pip install {name}' or set tracker to "
            "none."
        )


def add_tracker(trainer: Trainer, name: str, run_folder: Path) -> None:
    """Let ``trainer`` report to ``name`` under the run's id.

    tensorboard reads ``<run>/tensorboard``; trackio keeps its own folder on this machine, where
    ``trackio show`` finds all runs. Nothing leaves the machine.

    Raises:
        TrainingError: the tracker is not installed.
    """
    check_tracker(name)
    if name == "tensorboard":
        board = TensorBoardCallback()
        board.logging_dir = str(run_folder / "tensorboard")
        trainer.add_callback(board)
    elif name == "trackio":
        trainer.args.project, trainer.args.run_name = PROJECT, run_folder.name
        trainer.add_callback(TrackioCallback())
