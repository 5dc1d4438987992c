"""The trainer's log of a run in parquet: a row per optimiser step, beside the rollouts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from qoq_lib.runs import RunError, write_bytes_atomic

LOG_FILE = "training_log.parquet"


def step_log(history: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The optimiser steps of a trainer's ``log_history``; other entries, as its summary, go."""
    return pd.DataFrame([entry for entry in history if "loss" in entry])


def write_log(run_folder: Path, log: pd.DataFrame) -> None:
    """Write ``<run>/training_log.parquet``, whole or not at all."""
    write_bytes_atomic(run_folder / LOG_FILE, log.to_parquet(None, index=False))


def read_log(run_folder: Path) -> pd.DataFrame:
    """The log as far as it was written; without rows while a training has saved none yet.

    Raises ``RunError`` when the file is no parquet.
    """
    path = run_folder / LOG_FILE
    if not path.exists():
        return pd.DataFrame({"step": pd.Series(dtype=int)})
    try:
        return pd.read_parquet(path)
    except ValueError as error:
        raise RunError(f"Cannot read {path} ({error}): train this run again.") from error
