"""What runs beside a ``transformers`` trainer: progress for a reader, the log for later ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qoq_lib.runs import progress
from qoq_lib.training.log import step_log, write_log


class PlainProgress(TrainerCallback):
    """Throttled lines when nobody watches, a bar when somebody does."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._ticks: Iterator[int] = iter(())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start counting at the first step that is still to do; one process tells of all."""
        if not state.is_world_process_zero:
            return
        self._ticks = progress(state.max_steps - state.global_step, f"{self.label} (steps)")
        next(self._ticks, None)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """One optimiser step is done."""
        next(self._ticks, None)


class LogKeeper(TrainerCallback):
    """Keeps the log in the run folder, up to date with each checkpoint and at the end."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A checkpoint is complete: a training resumed from it knows these steps too."""
        if state.is_world_process_zero:
            write_log(self.run_folder, step_log(state.log_history))

    on_train_end = on_save
