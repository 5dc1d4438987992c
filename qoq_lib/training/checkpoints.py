"""Checkpoints on disk: a model with its processor, and the states of a training under way."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qoq_lib.runs import write_text_atomic

STATE_FILE = "drpo_state.json"


def save_checkpoint(model: Any, processor: Any, folder: Path) -> None:
    """Write model and processor under a temporary name, then rename the folder."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed here
    model.save_pretrained(part)
    processor.save_pretrained(part)
    if folder.exists():
        folder.rename(retired := folder.with_name(folder.name + ".old"))
        part.rename(folder)
        shutil.rmtree(retired)
    else:
        part.rename(folder)


def seal(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Write the advantage estimator's state, the last file of a checkpoint: it is complete now."""
    write_text_atomic(checkpoint / STATE_FILE, json.dumps(state))


def read_seal(checkpoint: Path) -> dict[str, Any]:
    """The estimator's state of a complete checkpoint."""
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
        shutil.rmtree(path)
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def may_resume(previous: Mapping[str, Any] | None, parameters: Any) -> bool:
    """Whether an earlier attempt at this stage stopped half-way with the same parameters."""
    if previous is None or previous["status"] == "completed":
        return False
    return bool(previous["parameters"] == vars(parameters))
