"""What runs beside a ``transformers`` trainer: progress, the log, and when to save and to stop.

With several processes each has its own clock and may get its own signals, so they agree at the end
of each step: saving and stopping are done by all at the same step, or by none.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qoq_lib.runs import progress
from qoq_lib.runs.signals import on_sigterm
from qoq_lib.training.monitoring.log import step_log, write_log


class PlainProgress(TrainerCallback):
    """Step, speed, time left and reward: throttled lines, or a bar where somebody watches."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._ticks: Iterator[int] = iter(())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start counting at the first step that is still to do; one process tells for all."""
        if not state.is_world_process_zero:
            return
        begin, first = time.monotonic(), state.global_step

        def note() -> str:
            pace = (state.global_step - first) / (time.monotonic() - begin)
            return _reward_and_speed(args, state, pace)

        self._ticks = progress(state.max_steps, f"{self.label} (steps)", first, note)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The step before is done and in the log."""
        next(self._ticks, None)

    on_train_end = on_step_begin


def _reward_and_speed(args: TrainingArguments, state: TrainerState, steps_per_second: float) -> str:
    """Of a training with rollouts: the last step's mean reward, and rollouts in a second."""
    rewards = [entry["reward"] for entry in state.log_history[-2:] if "reward" in entry]
    if not rewards:
        return ""
    passes = args.gradient_accumulation_steps * args.world_size // args.num_iterations
    rollouts = args.per_device_train_batch_size * passes
    return f"reward {rewards[-1]:.3f}, {rollouts * steps_per_second:.3g} rollouts/s"


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


class SaveEvery(TrainerCallback):
    """A checkpoint after the first step that ends ``minutes`` or more after the last one.

    The main process's clock decides.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._saved = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The time runs from here, and from the end of each saving."""
        self._saved = time.monotonic()

    on_save = on_train_begin

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save where it is time."""
        due = time.monotonic() - self._saved >= 60 * self.minutes
        due = agreed(due and state.is_world_process_zero)
        if due and is_resumable(args, state):
            control.should_save = True


class StopOnSignal(TrainerCallback):
    """SIGTERM, as a scheduler's warning, ends the training after the step with a checkpoint.

    Only inside ``listening``. ``caught`` tells whether it came to this process, or to another at
    a step's end before.
    """

    def __init__(self) -> None:
        self.caught = False

    def listening(self) -> AbstractContextManager[None]:
        """SIGTERM only sets ``caught`` in this block; after it, it does what it did before."""
        return on_sigterm(self._catch)

    def _catch(self) -> None:
        self.caught = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop where the signal came to any process."""
        if not agreed(self.caught):
            return
        self.caught = True
        if is_resumable(args, state):
            control.should_save = control.should_training_stop = True


def agreed(flag: bool) -> bool:
    """Whether ``flag`` holds in any process; every process has to ask, and all hear the same."""
    return any(gather_object([flag]))


def is_resumable(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether a training resumed after this step goes on as if it had not stopped.

    Between two optimiser steps that share a generation it does not: the generation is no part of a
    checkpoint, so its questions would be asked again. Nor after the last step: transformers takes
    a further one when it resumes there.
    """
    shared = getattr(args, "steps_per_generation", None) or args.gradient_accumulation_steps
    passes = shared * getattr(args, "num_iterations", 1)
    is_whole = state.global_step * args.gradient_accumulation_steps % passes == 0
    return is_whole and state.global_step < state.max_steps
