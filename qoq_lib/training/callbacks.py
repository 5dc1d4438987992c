"""Progress of a ``transformers`` trainer through ``qoq_lib.runs.progress``."""

from collections.abc import Iterator
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qoq_lib.runs import progress


class PlainProgress(TrainerCallback):
    """Throttled lines when nobody watches, a bar when somebody does."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._ticks: Iterator[int] = iter(())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start counting at the first step that is still to do."""
        self._ticks = progress(state.max_steps - state.global_step, f"{self.label} (steps)")
        next(self._ticks, None)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """One optimiser step is done."""
        next(self._ticks, None)
