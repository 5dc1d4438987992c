"""Checkpoints on disk: a model with its processor, and the states of a training under way."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from qoq_lib.model.files import ADAPTER_FILE, LoadError
from qoq_lib.runs import replaced_folder, runs_root, write_text_atomic
from qoq_lib.runs.manifest import Manifest

STATE_FILE = "drpo_state.json"
STAGES = {"trained": "03_drpo_train", "aligned": "02_align_modalities"}
"""The checkpoints that a run ends with, the last one first, and the notebook that makes each."""


def save_checkpoint(
    model: Any, processor: Any, folder: Path, weights: Mapping[str, Any] | None = None
) -> None:
    """Write model and processor under another name, then put them in the place of ``folder``.

    ``weights`` stand for the model's own, where each process holds a part of those.
    """
    with replaced_folder(folder) as part:
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed here
        model.save_pretrained(part, state_dict=weights)
        processor.save_pretrained(part)


def find_checkpoint(name: str, model_size: str) -> str | None:
    """What ``load_model`` takes for a user's word: a checkpoint folder, a run or a Hub id.

    An empty ``name`` stands for the run of ``model_size`` whose checkpoint was written last, and
    gives ``None`` where there is none. Of a run, the trained checkpoint comes before the aligned.

    Raises:
        LoadError: the name is a folder or a run without a checkpoint.
    """
    if not name:
        runs = [path.parent for path in runs_root().glob("*/run.json")]
        made = [run_checkpoint(run) for run in runs if model_size in _sizes(run)]
        newest = max(filter(None, made), key=_written, default=None)
        return str(newest) if newest else None
    for folder in (runs_root() / name, Path(name).expanduser()):
        if not folder.is_dir():
            continue
        found = folder if _written(folder) else run_checkpoint(folder)
        if found is None:
            raise LoadError(
                f"{folder} holds no aligned or trained checkpoint: run notebook 02 or 03 with its "
                "run_id, or name a checkpoint folder, another run or a Hub id."
            )
        return str(found)
    return name


def run_checkpoint(run: Path) -> Path | None:
    """The last finished checkpoint of a run folder."""
    folders = (run / "checkpoints" / name for name in STAGES)
    return next(filter(_written, folders), None)


def _written(checkpoint: Path) -> float:
    """When the checkpoint was written, in seconds since the epoch; 0 where it holds no model."""
    files = [checkpoint / name for name in ("config.json", ADAPTER_FILE)]
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def _sizes(run: Path) -> set[str]:
    """The model sizes that the run's alignment and training were started with."""
    stages = Manifest(run / "run.json", run.name).read()["stages"]
    return {stages[name]["parameters"]["model_size"] for name in STAGES.values() if name in stages}


class SealedCheckpoints:
    """For ``transformers.Trainer``: a checkpoint counts once all processes have written theirs."""

    accelerator: Any
    args: Any
    state: Any

    def sealed_state(self) -> Mapping[str, Any]:
        """What else a resumed training needs, as JSON can hold it."""
        return {}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            seal(Path(self.args.output_dir) / name, self.sealed_state())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.args.device.type == "cpu":  # of several processes accelerate calls it cpu:0,
            self.args._setup_devices = torch.device("cpu")  # and to that torch does not load
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]


def seal(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Write the last file of a checkpoint, once the others are on the disk: it is complete now."""
    for file in filter(Path.is_file, checkpoint.rglob("*")):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    write_text_atomic(checkpoint / STATE_FILE, json.dumps(state))


def read_seal(checkpoint: Path) -> dict[str, Any]:
    """The state that a complete checkpoint was sealed with."""
    state: dict[str, Any] = json.loads((checkpoint / STATE_FILE).read_text())
    return state


def last_complete(folder: Path) -> Path | None:
    """The newest complete ``checkpoint-<step>`` in ``folder``; half-written ones are removed.

    transformers writes a checkpoint file by file under its final name, so a killed run can leave
    one that looks usable and is not.
    """
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r".*-\d+", path.name)]
    complete = [path for path in found if (path / STATE_FILE).exists()]
    for path in set(found) - set(complete):
        shutil.rmtree(path, ignore_errors=True)  # another process may be at it
    return max(complete, key=step_of, default=None)


def remove_partial(run_folder: Path) -> None:
    """Remove what a run could not finish writing: checkpoints, models and rollouts."""
    last_complete(run_folder / "checkpoints" / "training")
    for path in run_folder.glob("checkpoints/*.partial"):
        shutil.rmtree(path, ignore_errors=True)
    for path in run_folder.glob("rollouts/.*.tmp"):
        path.unlink(missing_ok=True)


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.rsplit("-", 1)[1])
