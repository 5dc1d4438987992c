"""Training runs as their folders hold them, also unfinished ones and those of older versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qoq_lib.runs import RunError, runs_root
from qoq_lib.runs.manifest import Manifest
from qoq_lib.training.monitoring.log import read_log
from qoq_lib.training.rollouts import read_rollouts

NEEDED = ("step", "id", "domain", "dataset", "sample", "reward", "correct")
_TRAINING = "03_drpo_train"
_NOT_THE_ARM = {
    *("run_id", "seed", "method", "start_from"),
    # Where a training runs, and who watches it: nothing that its result depends on.
    *("tracker", "save_minutes", "num_processes", "parallel", "rollout_server"),
    "compile_decoding",
}
_SAME_REWARD = 1e-6


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """One training: its rollouts, the trainer's log, and what the manifest says of it.

    Attributes:
        run_id: name of the run folder.
        method: its file in ``configs/method``; the run's own name where no manifest tells.
        seed: the training's seed; ``None`` where no manifest tells.
        rollouts: a row per sampled answer, with ``NEEDED`` and what its version wrote besides, but
            for the texts.
        log: a row per optimiser step that was saved; it may end before the rollouts, or be empty.
        status: running, completed, failed or interrupted; "unknown" where no manifest tells.
        settings: the other parameters of the training.
    """

    run_id: str
    method: str
    seed: int | None
    rollouts: pd.DataFrame
    log: pd.DataFrame
    status: str = "unknown"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def groups(self) -> pd.DataFrame:
        """``groups`` of the rollouts, computed once."""
        return groups(self.rollouts)

    @property
    def has_temperatures(self) -> bool:
        """Whether advantages were scaled by domain; methods other than DRPO write ones."""
        column = self.rollouts.get("domain_temperature")
        return column is not None and bool((column.dropna() != 1).any())


def read_training_run(folder: Path) -> TrainingRun:
    """The training in a run folder, finished or not.

    Raises ``RunError``: no such run, no rollouts yet, a damaged file, or rollouts of a version
    too old to draw.
    """
    if not folder.is_dir():
        known = sorted(path.parent.name for path in folder.parent.glob("*/rollouts"))
        raise RunError(
            f"There is no run {folder.name!r} in {folder.parent}: the trained runs there are "
            f"{', '.join(known) or 'none'}."
        )
    rollouts = read_rollouts(folder / "rollouts", texts=False)
    if missing := [name for name in NEEDED if name not in rollouts]:
        raise RunError(
            f"The rollouts of run {folder.name!r} lack the columns {', '.join(missing)}: another "
            "version wrote them; train again with this one."
        )
    if "finish_reason" in rollouts:
        rollouts["cut"] = rollouts["finish_reason"] == "length"
    entry = Manifest(folder / "run.json", folder.name).read()["stages"].get(_TRAINING, {})
    parameters = entry.get("parameters", {})
    return TrainingRun(
        run_id=folder.name,
        method=parameters.get("method", folder.name),
        seed=parameters.get("seed"),
        rollouts=rollouts,
        log=read_log(folder),
        status=entry.get("status", "unknown"),
        settings={key: value for key, value in parameters.items() if key not in _NOT_THE_ARM},
    )


def read_training_runs(run_id: str, overlay: str = "") -> list[TrainingRun]:
    """The run and those of ``overlay``, names separated by commas, each once; as above."""
    names = [name.strip() for name in (run_id, *overlay.split(","))]
    return [read_training_run(runs_root() / name) for name in dict.fromkeys(names) if name]


def arms(runs: Sequence[TrainingRun]) -> dict[str, list[TrainingRun]]:
    """Runs that differ in seed, name and starting checkpoint alone, together under their method.

    Where trainings of one method differ in more, the label tells in what: "drpo, steps 50". A
    setting that some of them do not have, as those of an older version, is not compared.
    """
    found: dict[str, list[TrainingRun]] = {}
    for run in runs:
        found.setdefault(_label(run, runs), []).append(run)
    return found


def _label(run: TrainingRun, runs: Sequence[TrainingRun]) -> str:
    rivals = [other.settings for other in runs if other.method == run.method]
    keys = sorted(set.intersection(*map(set, rivals)))
    told = [key for key in keys if len({repr(settings[key]) for settings in rivals}) > 1]
    return ", ".join([run.method, *(f"{key} {run.settings[key]}" for key in told)])


def runs_table(runs: Sequence[TrainingRun]) -> pd.DataFrame:
    """A row per run: its line in the figures, seed, status, and how far rollouts and log go."""
    rows = {
        run.run_id: {
            "line": label,
            "seed": run.seed,
            "status": run.status,
            "steps": run.rollouts["step"].nunique(),
            "rollouts": len(run.rollouts),
            "logged steps": len(run.log),
        }
        for label, members in arms(runs).items()
        for run in members
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def groups(rollouts: pd.DataFrame) -> pd.DataFrame:
    """One row per group: the rollouts of one question, drawn together at one step.

    A group has a signal when its rewards differ: advantages compare rollouts with their own group,
    so equal rewards teach nothing. A question that a step asks twice makes two groups.

    Returns:
        ``step, id, domain, dataset, without_signal, all_correct, none_correct``, the last two true
        of groups without signal only, and the means of ``weight`` and both temperatures where the
        rollouts have them. A group whose rewards are missing has no signal.
    """
    asked = rollouts.groupby(["step", "id", "sample"]).cumcount().rename("asked")
    numbers = ("weight", "domain_temperature", "cluster_temperature")
    table = rollouts.groupby(["step", "id", asked], sort=True).agg(
        domain=("domain", "first"),
        dataset=("dataset", "first"),
        low=("reward", "min"),
        high=("reward", "max"),
        correct=("correct", "mean"),
        **{name: (name, "mean") for name in numbers if name in rollouts},
    )
    table = table.reset_index().drop(columns="asked")
    table["without_signal"] = ~((table["high"] - table["low"]) > _SAME_REWARD)
    table["all_correct"] = table["without_signal"] & (table["correct"] == 1)
    table["none_correct"] = table["without_signal"] & (table["correct"] == 0)
    return table.drop(columns=["low", "high", "correct"])


def first_and_last(rollouts: pd.DataFrame, share: float = 0.1) -> dict[str, pd.DataFrame]:
    """The rollouts of the first and of the last ``share`` of the steps, one step at least."""
    steps = np.sort(rollouts["step"].unique())
    count = max(1, round(share * len(steps)))
    ends = {"first": steps[:count], "last": steps[-count:]}
    return {name: rollouts[rollouts["step"].isin(part)] for name, part in ends.items()}
