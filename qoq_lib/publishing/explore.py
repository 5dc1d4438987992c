"""Reading traces: which there are, which of them one wants to see, and one of them in full.

The rows stay on disk. What is held in memory is ``trace_index``: a few numbers and codes per trace,
some 40 bytes, so that a set of a million traces can be filtered and counted on a laptop.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, load_dataset
from PIL import Image

from qoq_lib.data.shards import AssemblyError
from qoq_lib.publishing.loading import TracesError, load_traces
from qoq_lib.publishing.trace_cases import read_cases, run_image_processor
from qoq_lib.publishing.trace_source import read_source
from qoq_lib.runs import RunError

UNREADABLE = "(no readable answer)"
OUTCOMES = ("any", "correct", "wrong")
_INDEXED = (
    *("id", "domain", "dataset", "step", "sample", "correct", "reward", "n_tokens"),
    *("finish_reason", "final_answer", "answers"),
)


@dataclass(eq=False)
class Traces:
    """Traces of a run or of a published set.

    Attributes:
        name: of the run, folder or Hub data set.
        rows: a row per sampled answer, mapped from disk.
        run: folder of the run; ``None`` for a published set.
        cases: the questions of a published set; ``None`` for a run, or where the set has none.
    """

    name: str
    rows: Dataset
    run: Path | None = None
    cases: Dataset | None = None

    def read(self, position: int) -> dict[str, Any]:
        """The trace at a position of ``trace_index``, in full."""
        row: dict[str, Any] = self.rows[int(position)]
        return row

    def case(self, name: str) -> dict[str, Any] | None:
        """The question ``name`` as ``trace_rows.CASES``; ``None`` where nobody here has it."""
        return next(iter(self.cases_of([name])), None)

    def cases_of(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Those of several questions that are to be had, in the order of ``names``."""
        if self.cases is not None:
            ids = self.cases.select_columns(["id"]).with_format("arrow")[:]["id"]
            places = [pc.index(ids, name).as_py() for name in names]
            return [self.cases[place] for place in places if place >= 0]
        if self.run is None:
            return []
        sets = self.rows.unique("dataset")
        try:
            found = list(read_cases(self.run / "data", names, sets, self._image_processor))
        except (AssemblyError, OSError):  # the data are gone or were moved since
            return []
        by_id = {case["id"]: _decoded(case) for case in found}
        return [by_id[name] for name in names if name in by_id]

    @cached_property
    def _image_processor(self) -> Any:
        return run_image_processor(self.run) if self.run else None


def _decoded(case: dict[str, Any]) -> dict[str, Any]:
    images = [Image.open(io.BytesIO(image["bytes"])) for image in case["images"] or []]
    return {**case, "images": images}


def open_traces(run: Path, repo_or_path: str = "", revision: str = "") -> Traces:
    """The traces of a published set, or of the run where none is named.

    Raises:
        RunError: the run has no rollouts, or damaged ones.
        TracesError: what is named is no trace set.
        HubError: its kinds tell a gated repository from a missing one and from being offline.
    """
    if not repo_or_path:
        return _open_run(run)
    rows = load_traces(repo_or_path, "all", revision or None)
    try:
        cases = load_traces(repo_or_path, "cases", revision or None)
    except TracesError:  # written without the run's data
        cases = None
    return Traces(Path(repo_or_path).name, rows, cases=cases)


def _open_run(run: Path) -> Traces:
    files = [str(path) for path in read_source(run).rollouts]
    if not files:
        raise RunError(f"The run {run.name!r} has no rollouts: its method does not sample.")
    cache = str(run / "rollouts" / ".cache")
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    return Traces(run.name, rows, run=run)


def trace_index(rows: Dataset) -> pd.DataFrame:
    """What traces are found and counted by, a row per trace in their order on disk.

    Returns:
        ``id, domain, dataset, finish_reason`` and ``said`` (the labels of the final answer, or
        ``UNREADABLE``), ``true`` (those of the question) as categories; ``step, sample, correct,
        reward, n_tokens``; a column that the traces do not have is left out.
    """
    names = [name for name in _INDEXED if name in rows.column_names]
    table = rows.select_columns(names).with_format("arrow")[:]
    columns: dict[str, Any] = {
        name: _category(table[name])
        for name in ("id", "domain", "dataset", "finish_reason")
        if name in names
    }
    columns |= {
        "said": _category(_joined(table["final_answer"])),
        "true": _category(_joined(table["answers"])),
    }
    small = {"step": "int32", "sample": "int32", "reward": "float32", "n_tokens": "float32"}
    numbers = {name: table[name].to_numpy() for name in small if name in names}
    columns |= {name: values.astype(small[name]) for name, values in numbers.items()}
    correct = pc.fill_null(table["correct"], False).to_numpy()
    return pd.DataFrame(columns | {"correct": correct})


def _joined(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    joined = pc.binary_join(labels, ", ")
    return pc.if_else(pc.equal(pc.fill_null(joined, ""), ""), UNREADABLE, joined)


def _category(values: pa.ChunkedArray) -> pd.Categorical:
    coded = pc.dictionary_encode(values).combine_chunks()
    coded = coded if isinstance(coded, pa.DictionaryArray) else coded.chunk(0)
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(codes, coded.dictionary.to_pylist())


def chosen(
    index: pd.DataFrame,
    *,
    domain: str = "",
    dataset: str = "",
    outcome: str = "any",
    reward_from: float | None = None,
    reward_to: float | None = None,
) -> pd.DataFrame:
    """The rows of an index that are wanted; an empty word or ``None`` asks for nothing.

    Raises:
        TracesError: there is no such domain or data set among the traces, or nothing is left.
    """
    wanted = np.ones(len(index), bool)
    for column, value in (("domain", domain), ("dataset", dataset)):
        known = list(index[column].cat.categories)
        if value and value not in known:
            raise TracesError(f"No trace is of the {column} {value!r}: use {', '.join(known)}.")
        if value:
            wanted &= (index[column] == value).to_numpy()
    if outcome != "any":
        wanted &= index["correct"].to_numpy() == (outcome == "correct")
    if reward_from is not None:
        wanted &= index["reward"].to_numpy() >= reward_from
    if reward_to is not None:
        wanted &= index["reward"].to_numpy() <= reward_to
    if not wanted.any():
        raise TracesError("No trace is left after these filters: ask for less.")
    return index[wanted]
