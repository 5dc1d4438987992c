"""The two walls of a long training, memory and disk: what to turn, in one sentence."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size

from qoq_lib.training.checkpoints import last_complete, remove_partial
from qoq_lib.training.job import TrainingError, TrainingJob

# torch.save reports a write cut short by a wrong position in the file, safetensors by a text alone.
FULL_DISK = re.compile(r"no space left|quota exceeded|unexpected pos \d+ vs \d+", re.IGNORECASE)


@contextmanager
def limits_told(job: TrainingJob, run_folder: Path) -> Iterator[None]:
    """Turn the many errors of a full disk or memory in this block into one of ours.

    Half-written files are removed from a full disk, so that the last complete checkpoint and what
    is written about the end of the run have room.

    Raises:
        TrainingError: disk or memory did not suffice. Other errors pass.
    """
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise TrainingError(_disk_sentence(run_folder)) from error
        if is_out_of_memory(error):
            raise TrainingError(_memory_sentence(error, job, run_folder)) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error``, or what it came from, is a write that found no room."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    cause = error.__cause__
    return bool(FULL_DISK.search(str(error))) or (cause is not None and is_disk_full(cause))


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` is memory, of the GPU or of the machine, that could not be had."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or should_reduce_batch_size(error)


def _disk_sentence(run_folder: Path) -> str:
    remove_partial(run_folder)
    free, last = shutil.disk_usage(run_folder).free, _last(run_folder)
    return (
        f"The disk of {run_folder} is full ({_size(free)} free now that half-written files are "
        "removed"
        + (f", a checkpoint takes {_size(_held(last))}" if last else "")
        + "): free some of it, or move the run folder to a larger disk and set QOQ_RUNS to the "
        "folder that it then lies in; the same run_id "
        + (
            f"goes on from {last.name}."
            if last
            else "then starts anew: no checkpoint was complete."
        )
    )


def _memory_sentence(error: Exception, job: TrainingJob, run_folder: Path) -> str:
    size, last = job.size, _last(run_folder)
    where = "The GPU" if size.needs_gpu and not isinstance(error, MemoryError) else "This machine"
    length = size.max_completion_length or "what answers need"
    return (
        f"{where} has too little memory for this training: lower first, with overrides, "
        f"training.micro_batch (now {size.training.micro_batch}), then the images' pixels, then "
        f"max_completion_length (now {length}), or set tuning to qlora (now {size.tuning}); "
        + (
            f"with another micro_batch the same run_id goes on from {last.name}, else anew."
            if last
            else "the same run_id then starts anew: no checkpoint was complete."
        )
    )


def _last(run_folder: Path) -> Path | None:
    return last_complete(run_folder / "checkpoints" / "training")


def _held(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*"))


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
