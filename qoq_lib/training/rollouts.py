"""Every rollout of a run, kept in parquet as the run goes: one file per optimiser step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qoq_lib.answers import read_answer, reasoning
from qoq_lib.runs import RunError, write_bytes_atomic

_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "domain": pa.string(),
        "dataset": pa.string(),
        "source_record": pa.string(),  # the record's name in its source
        "question": pa.string(),
        "options": _TEXTS,
        "answers": _TEXTS,
        "image_ref": _TEXTS,  # SHA-256 of each image file
        "ecg_ref": pa.string(),  # SHA-256 of the signal
        "model": pa.string(),
        "model_revision": pa.string(),
        "run_id": pa.string(),
        "step": pa.int64(),
        "sample": pa.int64(),
        "completion": pa.string(),
        "reasoning": pa.string(),
        "final_answer": _TEXTS,
        "boxes": pa.list_(pa.list_(pa.float64())),  # the completion's, in the model's pixels
        **dict.fromkeys(
            ("reward_accuracy", "reward_iou", "reward_format", "reward_length"), pa.float64()
        ),
        **dict.fromkeys(("reward", "advantage", "weight"), pa.float64()),
        "cluster": pa.int64(),
        "domain_temperature": pa.float64(),
        "cluster_temperature": pa.float64(),
        "correct": pa.bool_(),
        "finish_reason": pa.string(),  # stop | length
        "n_tokens": pa.int64(),
        "seed": pa.int64(),
    }
)
"""The trace row of the package's design, with what DRPO made of it; missing is null."""

TEXTS = (
    *("source_record", "question", "options", "answers", "image_ref", "ecg_ref", "model"),
    *("model_revision", "run_id", "completion", "reasoning", "final_answer", "boxes"),
)
"""Columns that say what was asked and answered, and where it came from."""


class RolloutWriter:
    """Writes ``<folder>/step-00000123.parquet``; a repeated step replaces its file.

    ``facts`` are columns that are the same in every row, such as ``run_id`` and ``seed``.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any] | None = None) -> None:
        self.folder, self.facts = Path(folder), dict(facts or {})
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one step, whole or not at all; ``RunError`` when the disk refuses.

        What a completion says is read here. Columns that are not in ``SCHEMA`` are left out, but
        for rewards of further functions.
        """
        schema = SCHEMA
        for name in rows[0] if rows else ():
            if name.startswith("reward_") and name not in SCHEMA.names:
                schema = schema.append(pa.field(name, pa.float64()))
        told = [{**self.facts, **row, **said(row), "step": step} for row in rows]
        pq.write_table(pa.Table.from_pylist(told, schema=schema), buffer := pa.BufferOutputStream())
        file = self.folder / f"step-{step:08d}.parquet"
        write_bytes_atomic(file, buffer.getvalue().to_pybytes())

    def drop_after(self, step: int) -> None:
        """Remove steps later than ``step``: a resumed run makes them again."""
        for path in self.folder.glob("step-*.parquet"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()


def said(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row's ``completion`` says: reasoning, labels and boxes, and the row's own record."""
    answer = read_answer(row["completion"], row["options"])
    return {
        "source_record": row["id"].removeprefix(f"{row['dataset']}/"),
        "reasoning": reasoning(row["completion"]) or None,
        "final_answer": list(answer.labels),
        "boxes": [list(box) for box in answer.boxes],
    }


def read_rollouts(folder: Path, *, texts: bool = True) -> pd.DataFrame:
    """All rollouts of a run, in order of step; a run still training gives those of its past steps.

    Without ``texts`` the columns ``TEXTS`` stay on disk: who asks for scores alone need not have a
    whole run's completions in memory.

    Raises ``RunError`` when there are none, or a file is damaged.
    """
    files = sorted(Path(folder).glob("step-*.parquet"))
    if not files:
        raise RunError(
            f"No rollouts in {folder}: run notebook 03 for this run first, with a method that "
            "samples (sft does not)."
        )
    return pd.concat([_read_step(path, texts) for path in files], ignore_index=True)


def _read_step(path: Path, texts: bool) -> pd.DataFrame:
    try:
        held = pq.read_schema(path).names
        return pd.read_parquet(path, columns=[name for name in held if texts or name not in TEXTS])
    except (OSError, ValueError) as error:
        raise RunError(f"Cannot read {path} ({error}): train this run again.") from error


def no_rollouts() -> pd.DataFrame:
    """An empty table of rollouts, for the supervised arm."""
    return SCHEMA.empty_table().to_pandas()


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
