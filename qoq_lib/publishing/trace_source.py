"""The tables of a run that traces are made from, in the columns of the configuration ``all``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from qoq_lib.data.prompts import AnswerStyle
from qoq_lib.evaluation.report import MODELS
from qoq_lib.model.loading import load_size
from qoq_lib.model.overrides import override
from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.publishing.policy import dataset_counts, total
from qoq_lib.publishing.trace_rows import NEEDED, as_features, sample_features
from qoq_lib.runs import RunError
from qoq_lib.runs.manifest import Manifest
from qoq_lib.training.rollouts import said

REWARDS = ("reward_accuracy", "reward_iou", "reward_format", "reward_length")
"""The components that every trace set has a column of."""


@dataclass(frozen=True)
class TraceSource:
    """A run's files with traces, and what is common to them.

    Attributes:
        folder: of the run.
        rollouts: a file per optimiser step.
        predictions: a file per model of the run; answers made elsewhere are somebody else's.
        counts: rows by data set over both.
        rewards: names of the reward components.
        columns: those of the rollouts' files.
        style: how the questions were put.
        seed: of the training, where the manifest tells.
    """

    folder: Path
    rollouts: list[Path]
    predictions: list[Path]
    counts: Mapping[str, int]
    rewards: tuple[str, ...]
    columns: frozenset[str]
    style: AnswerStyle
    seed: int | None

    @property
    def features(self) -> Features:
        """Of the configuration ``all``."""
        return sample_features(self.rewards)

    def ids(self) -> dict[str, set[str]]:
        """The questions of the rollouts and of the predictions."""
        return {
            "rollouts": _ids(self.rollouts),
            "predictions": _ids(self.predictions),
        }

    def rollout_tables(self) -> Iterator[pa.Table]:
        """Each step's rollouts, with further columns as they were written."""
        for path in self.rollouts:
            table = pq.read_table(path)
            typed = as_features(table, self.features)
            for name in set(table.column_names) - set(typed.column_names):
                typed = typed.append_column(name, table[name])
            yield typed

    def prediction_tables(self, asked: Mapping[str, Mapping[str, Any]]) -> Iterator[pa.Table]:
        """Each model's answers; ``asked`` tells question and refs by id."""
        for path in self.predictions:
            frame = pd.read_parquet(path)
            told = {"model": path.stem, "run_id": self.folder.name, "sample": 0, "seed": self.seed}
            rows = [
                told | dict(asked.get(row["id"], {})) | _answer(row)
                for row in frame.to_dict("records")
            ]
            yield pa.Table.from_pylist(rows, schema=self.features.arrow_schema)


def read_source(folder: Path) -> TraceSource:
    """The traces of a run folder, finished or not.

    Raises:
        ReleaseError: there are none.
        RunError: a file is damaged, or of a version without columns that are needed.
    """
    folder = Path(folder)
    rollouts = sorted((folder / "rollouts").glob("step-*.parquet"))
    predictions = [folder / "predictions" / f"{name}.parquet" for name in MODELS]
    predictions = [path for path in predictions if path.is_file()]
    if not rollouts and not predictions:
        raise ReleaseError(f"There are no traces in {folder}: run notebook 03 with this run_id.")
    try:
        columns = frozenset(name for path in rollouts for name in pq.read_schema(path).names)
        counts = total(dataset_counts(path) for path in [*rollouts, *predictions])
    except (OSError, pa.ArrowInvalid) as error:
        raise RunError(f"A file of {folder} cannot be read ({error}): make it again.") from error
    if rollouts and (missing := [name for name in NEEDED if name not in columns]):
        raise RunError(
            f"The rollouts of run {folder.name!r} lack the columns {', '.join(missing)}: another "
            "version wrote them; train again with this one."
        )
    more = sorted(name for name in columns if name.startswith("reward_") and name not in REWARDS)
    given = _parameters(folder)
    return TraceSource(
        folder=folder,
        rollouts=rollouts,
        predictions=predictions,
        counts=counts,
        rewards=(*REWARDS, *more),
        columns=columns,
        style=style_asked(given),
        seed=given.get("seed"),
    )


def _parameters(folder: Path) -> Mapping[str, Any]:
    """Those of the training, or of the last stage before it."""
    stages = Manifest(folder / "run.json", folder.name).read()["stages"]
    asked = [stages[name] for name in ("03_drpo_train", "02_align_modalities") if name in stages]
    parameters: Mapping[str, Any] = asked[0]["parameters"] if asked else {}
    return parameters


def style_asked(parameters: Mapping[str, Any]) -> AnswerStyle:
    """The answer style of a stage that was run with these parameters."""
    size = parameters.get("model_size", "tiny")
    return override(load_size(size), parameters.get("overrides", "")).answer_style


def _ids(paths: list[Path]) -> set[str]:
    return {
        name for path in paths for name in pq.read_table(path, columns=["id"])["id"].to_pylist()
    }


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    answers, told = list(row["answers"]), said(row)
    tokens = row.get("n_tokens")
    return told | {
        **{name: row[name] for name in ("id", "domain", "dataset", "completion")},
        "options": list(row["options"]),
        "answers": answers,
        "correct": set(told["final_answer"]) == set(answers),
        "n_tokens": None if tokens is None or pd.isna(tokens) else int(tokens),
    }
