"""Every rollout of a run, kept in parquet as the run goes: one file per optimiser step."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

COLUMNS = (
    *("id", "domain", "dataset", "question", "options", "answers", "step", "sample"),
    *("completion", "reward_accuracy", "reward_iou", "reward_format", "reward_length"),
    *("reward", "advantage", "weight", "cluster", "domain_temperature", "cluster_temperature"),
    *("correct", "n_tokens"),
)


class RolloutWriter:
    """Writes ``<folder>/step-00000123.parquet``; a repeated step replaces its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Write one step under a temporary name, then rename it."""
        target = self.folder / f"step-{step:08d}.parquet"
        part = target.with_suffix(".part")
        pd.DataFrame(list(rows), columns=list(COLUMNS)).to_parquet(part, index=False)
        os.replace(part, target)

    def drop_after(self, step: int) -> None:
        """Remove steps later than ``step``: a resumed run makes them again."""
        for path in self.folder.glob("step-*.parquet"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()


def read_rollouts(folder: Path) -> pd.DataFrame:
    """All rollouts of a run, in order of step; raises ``FileNotFoundError`` when there are none."""
    files = sorted(Path(folder).glob("step-*.parquet"))
    if not files:
        raise FileNotFoundError(f"No rollouts in {folder}: run notebook 03 for this run first.")
    return pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)


def no_rollouts() -> pd.DataFrame:
    """An empty table of rollouts, for the supervised arm."""
    return pd.DataFrame(columns=list(COLUMNS))


def batch_table(rollouts: pd.DataFrame) -> pd.DataFrame:
    """The last step by domain and cluster: questions, mean reward, temperatures and weight."""
    last = rollouts[rollouts["step"] == rollouts["step"].max()]
    return last.groupby(["domain", "cluster"], as_index=False).agg(
        questions=("id", "nunique"),
        reward=("reward", "mean"),
        domain_temperature=("domain_temperature", "first"),
        cluster_temperature=("cluster_temperature", "first"),
        weight=("weight", "mean"),
    )
