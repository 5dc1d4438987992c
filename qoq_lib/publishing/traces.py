"""A run's reasoning traces as a data set for the Hub: a folder that is complete by itself.

``write_traces`` makes the configurations of ``trace_rows`` from ``rollouts/`` (split ``train``:
questions that the policy learned from) and ``predictions/`` (split ``test`` of ``all``: answers on
held-out patients), obeys the data cards, and looks once more at what it wrote.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features

from qoq_lib.data.storage import INDEX_FILE
from qoq_lib.publishing.folders import ReleaseError, built_folder
from qoq_lib.publishing.policy import Verdict, judge, require
from qoq_lib.publishing.scan import check_clean, suspicious
from qoq_lib.publishing.shard_writer import ShardWriter
from qoq_lib.publishing.trace_cases import read_cases, run_image_processor
from qoq_lib.publishing.trace_rows import (
    CASES,
    CHAT,
    QUESTION,
    Chats,
    as_features,
    group_features,
    grouped,
)
from qoq_lib.publishing.trace_set import MARKER, TraceSet, TraceSplit
from qoq_lib.publishing.trace_source import TraceSource, read_source
from qoq_lib.runs import progress, sha256_file

ROWS_PER_SHARD = {"default": 50_000, "all": 50_000, "rl_steps": 10_000, "cases": 2_000}
ROWS_PER_GROUP = {"default": 2_000, "all": 2_000, "rl_steps": 500, "cases": 50}
_MAY_NOT, _PERSONAL = "the data set may not leave", "the text looks as if it named a person"
_WRITTEN = ("id", "source_record", "question", "completion")
"""Texts of a row that a source or a model wrote."""


def write_traces(
    run_folder: Path, out: Path, *, gated: bool = False, leave_out: bool = False
) -> TraceSet:
    """Write the traces of a run to the folder ``out``, ready for ``load_dataset`` and the Hub.

    Rows whose text looks as if it named a person (``scan.PATTERNS``) are left out and counted.

    Args:
        run_folder: of a run with rollouts or predictions; it may still be training.
        out: a new folder, or a trace set that is replaced.
        gated: whether it is for a gated repository, which the sources of some rows ask for.
        leave_out: leave out the rows of data sets that may not leave, instead of refusing.

    Returns:
        What was written, and left out, and why.

    Raises:
        PolicyError: rows may not leave; its ``verdicts`` are the table of reasons.
        ReleaseError: there are no traces, or ``out`` holds something else.
        RunError: a file of the run is damaged, or of a version without columns that are needed.
        ScanError: what was written still holds something that must not leave.
    """
    source = read_source(Path(run_folder))
    verdicts = judge(source.counts, "traces", gated=gated)
    if not leave_out or not any(one.allowed for one in verdicts):
        require(verdicts)
    with built_folder(Path(out), MARKER) as folder, ExitStack() as stack:
        writing = _Writing(source, verdicts, gated, folder, stack)
        writing.write_cases()
        writing.write_rollouts()
        writing.write_predictions()
        stack.close()  # the shards get their names
        check_clean(folder)
        written = writing.told()
        written.save(folder)
    return written


class _Writing:
    """The parts of one trace set, written one after the other."""

    def __init__(
        self,
        source: TraceSource,
        verdicts: Iterable[Verdict],
        gated: bool,
        folder: Path,
        stack: ExitStack,
    ) -> None:
        self.source, self.gated, self.folder, self._stack = source, gated, folder, stack
        self.verdicts = tuple(verdicts)
        self.allowed = [one.dataset for one in self.verdicts if one.allowed]
        self.images = judge(self.allowed, "images", gated=gated)
        self.shards: dict[str, dict[str, ShardWriter]] = {}
        self.left_out: Counter[str] = Counter()
        self.datasets: Counter[str] = Counter()
        self.notes: list[str] = []
        self._asked: dict[str, dict[str, Any]] = {}  # of the predictions: question and refs
        self._reports: dict[str, str] = {}  # of the rollouts
        self._barred: set[str] = set()  # questions whose own text names a person

    def write_cases(self) -> None:
        """``cases``, and what the other configurations need to know of the questions."""
        data = self.source.folder / "data"
        if not (data / INDEX_FILE).is_file():
            self.notes.append(
                "The run's data folder is gone: there are no cases, and the predictions have no "
                "question text."
            )
            return
        image_processor = run_image_processor(self.source.folder)
        if image_processor is None:
            self.notes.append(
                "The run has no checkpoint, so that the size at which the model saw the images is "
                "not known: the cases have no boxes."
            )
        ids = self.source.ids()
        shared = [one.dataset for one in self.images if one.allowed]
        cases = read_cases(data, ids["rollouts"] | ids["predictions"], shared, image_processor)
        writer = self._open("cases", "train", CASES)
        waiting: list[dict[str, Any]] = []
        for case in cases:
            if case["dataset"] not in self.allowed:
                continue
            self._remember(case, ids)
            waiting.append(case)
            if len(waiting) == ROWS_PER_GROUP["cases"]:
                self._write_cases(writer, waiting)
                waiting = []
        self._write_cases(writer, waiting)

    def _remember(self, case: Mapping[str, Any], ids: Mapping[str, Collection[str]]) -> None:
        if case["id"] in ids["predictions"]:
            self._asked[case["id"]] = {name: case[name] for name in QUESTION}
        if case["id"] in ids["rollouts"] and case["report"]:
            self._reports[case["id"]] = case["report"]

    def _write_cases(self, writer: ShardWriter, cases: list[dict[str, Any]]) -> None:
        table = pa.Table.from_pylist(cases, schema=CASES.arrow_schema)
        personal = _any_personal(table, ("id", "source_record", "question", "report"))
        self._barred.update(table["id"].filter(personal).to_pylist())
        writer.write(table.filter(pc.invert(personal)))

    def write_rollouts(self) -> None:
        """The split ``train`` of ``default``, ``all`` and ``rl_steps``."""
        if not self.source.rollouts:
            self.notes.append("This method has no rollouts: the traces are its answers alone.")
            return
        groups = group_features(self.source.rewards)
        chats = Chats(self.source.style, self._reports)
        writers = {
            "default": self._open("default", "train", CHAT),
            "all": self._open("all", "train", self.source.features),
            "rl_steps": self._open("rl_steps", "train", groups),
        }
        unknown = sorted(set(self.source.features) - self.source.columns)
        if unknown:
            self.notes.append(f"Not written by this run's version: {', '.join(unknown)}.")
        tables = self.source.rollout_tables()
        for table in progress(tables, label="traces (steps)"):
            kept = self._kept(table)
            samples = kept.select(list(self.source.features))
            writers["all"].write(samples)
            writers["default"].write(chats.of(samples))
            writers["rl_steps"].write(grouped(kept, groups))

    def write_predictions(self) -> None:
        """The split ``test`` of ``all``."""
        if not self.source.predictions:
            return
        writer = self._open("all", "test", self.source.features)
        for table in self.source.prediction_tables(self._asked):
            writer.write(as_features(self._kept(table), self.source.features))

    def _kept(self, table: pa.Table) -> pa.Table:
        """The rows that may leave; the others are counted."""
        allowed = pc.is_in(table["dataset"], pa.array(self.allowed, pa.string()))
        self.left_out[_MAY_NOT] += len(table) - pc.sum(allowed).as_py()
        table = table.filter(allowed)
        personal = pc.or_(
            _any_personal(table, _WRITTEN),
            pc.is_in(table["id"], pa.array(sorted(self._barred), pa.string())),
        )
        self.left_out[_PERSONAL] += pc.sum(personal).as_py() or 0
        table = table.filter(pc.invert(personal))
        for one in pc.value_counts(table["dataset"]).to_pylist():
            self.datasets[one["values"]] += one["counts"]
        return table

    def _open(self, config: str, split: str, features: Features) -> ShardWriter:
        writer = self._stack.enter_context(
            ShardWriter(
                self.folder,
                config,
                split,
                features,
                rows_per_shard=ROWS_PER_SHARD[config],
                rows_per_group=ROWS_PER_GROUP[config],
            )
        )
        self.shards.setdefault(config, {})[split] = writer
        return writer

    def _filled(self, config: str) -> dict[str, ShardWriter]:
        """The splits of a configuration that have rows."""
        splits = self.shards.get(config, {})
        return {split: writer for split, writer in splits.items() if writer.rows}

    def told(self) -> TraceSet:
        """The set as its card and its publisher see it."""
        writers = {config: self._filled(config) for config in ROWS_PER_SHARD}
        writers = {config: splits for config, splits in writers.items() if splits}
        if "all" not in writers:
            raise ReleaseError(
                f"Nothing of run {self.source.folder.name!r} is left to write: "
                f"{self.left_out.total()} rows were left out."
            )
        if "default" in self.shards and "default" not in writers:
            self.notes.append("No answer in training was correct and well-formed: no chats.")
        paths = [
            path for splits in writers.values() for one in splits.values() for path in one.paths
        ]
        return TraceSet(
            run_id=self.source.folder.name,
            gated=self.gated,
            configs={
                config: {split: _size(writer) for split, writer in splits.items()}
                for config, splits in writers.items()
            },
            features={
                config: next(iter(splits.values())).features for config, splits in writers.items()
            },
            files={path.relative_to(self.folder).as_posix(): sha256_file(path) for path in paths},
            datasets=dict(sorted(self.datasets.items())),
            verdicts=(*self.verdicts, *self.images),
            left_out={reason: rows for reason, rows in self.left_out.items() if rows},
            notes=tuple(self.notes),
        )


def _size(writer: ShardWriter) -> TraceSplit:
    stored = sum(path.stat().st_size for path in writer.paths)
    return TraceSplit(writer.rows, writer.size, stored)


def _any_personal(table: pa.Table, names: Iterable[str]) -> pa.ChunkedArray:
    found = pa.chunked_array([pa.repeat(False, len(table))])
    for name in names:
        found = pc.or_(found, suspicious(table[name]))
    return found
