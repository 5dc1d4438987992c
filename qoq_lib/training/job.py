"""One training, written down: what ``<run>/config.yaml`` holds and every process reads."""

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qoq_lib.model.loading import ModelSize
from qoq_lib.runs import OneSentenceError, write_text_atomic
from qoq_lib.training.backend import Backend
from qoq_lib.training.methods import Method

CONFIG_FILE = "config.yaml"

Rollout = Literal["transformers", "vllm", "vllm_server"]
Parallel = Literal["ddp", "fsdp2", "zero3"]


class TrainingError(OneSentenceError, RuntimeError):
    """A training cannot start or go on; the message says what to do."""


class TrainingJob(BaseModel):
    """Everything that decides a training, but for its rows.

    Attributes:
        start: folder of the aligned checkpoint.
        size: model, budget and precision.
        method: advantages, loss and sampling of questions.
        reward: a key of ``rewards.PRESETS``.
        data: fingerprint of the assembled data; empty: unknown.
        rollout: the engine that samples completions (``engines``).
        rollout_server: address of the vLLM server of ``vllm_server``.
        compile_decoding: whether transformers samples in a compiled static cache, on a GPU.
        backend: who provides the adapters.
        tracker: where else the log goes; it is always kept in the run folder.
        save_minutes: a checkpoint is written at least that often.
        processes: how many train together.
        parallel: how several GPUs share the model, a file of ``configs/accelerate``.
    """

    model_config = ConfigDict(extra="forbid")
    start: Path
    size: ModelSize
    method: Method
    reward: str = "paper"
    seed: int = 0
    data: str = ""
    rollout: Rollout = "transformers"
    rollout_server: str = "http://127.0.0.1:8000"
    compile_decoding: bool = True
    backend: Backend = "peft"
    tracker: Literal["none", "tensorboard", "trackio"] = "none"
    save_minutes: float = Field(default=10.0, gt=0)
    processes: int = Field(default=1, ge=1)
    parallel: Parallel = "ddp"

    def text(self, run_folder: Path) -> str:
        """The YAML of this job; ``start`` is relative to the run folder: no path of a home."""
        values = self.model_dump(mode="json")
        values["start"] = os.path.relpath(self.start, run_folder)
        return yaml.safe_dump(values, sort_keys=False)

    def is_kept_in(self, run_folder: Path) -> bool:
        """Whether the last training of this run was this very one, in whatever passes it ran."""
        path = run_folder / CONFIG_FILE
        if not path.is_file():
            return False
        return _decisive(path.read_text(encoding="utf-8")) == _decisive(self.text(run_folder))

    def save(self, run_folder: Path) -> Path:
        """Write ``config.yaml`` into the run folder."""
        return write_text_atomic(run_folder / CONFIG_FILE, self.text(run_folder))


def _decisive(text: str) -> Any:
    """What of a job's YAML decides its outcome: not the memory it takes, nor who watches it."""
    values = yaml.safe_load(text)
    for name in ("tracker", "save_minutes", "compile_decoding"):
        values.pop(name, None)
    values["size"]["training"].pop("micro_batch", None)
    values["size"].pop("prediction_batch", None)
    return values


def load_job(path: Path) -> TrainingJob:
    """Read a ``config.yaml``; ``TrainingError`` where it is missing or holds a wrong value."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values["start"] = path.parent / values["start"]
        return TrainingJob(**values)
    except OSError as error:
        raise TrainingError(
            f"Cannot read {path} ({error.strerror}): name the config.yaml of a run that notebook "
            "03 has started."
        ) from error
    except (yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise TrainingError(
            f"{path} does not describe a training ({' '.join(reason.split())}): start it anew with "
            "notebook 03."
        ) from error
