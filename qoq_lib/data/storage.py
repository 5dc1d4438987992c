"""An assembled data set on disk: ``<split>.parquet`` per split, and ``assembly.json`` beside them.

It is written in a temporary sibling folder and takes its final name only when it is complete.
"""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, NamedSplit

from qoq_lib.data.example import FEATURES, SPLITS
from qoq_lib.runs import OneSentenceError

ASSEMBLY_FILE = "assembly.json"
SCHEMA: pa.Schema = FEATURES.arrow_schema
_ROWS_PER_GROUP = 64


class AssemblyError(OneSentenceError, RuntimeError):
    """A data set cannot be assembled, written or loaded; the message says why and what to do."""


@dataclass(frozen=True)
class Refusal:
    """A case that was left out because a file of it cannot be used."""

    dataset: str
    record: str
    reason: str


@dataclass(frozen=True)
class Duplicate:
    """Row ids whose files are the same byte for byte, and whether their labels are, too."""

    ids: list[str]
    same_label: bool


@dataclass
class Assembly:
    """What was assembled.

    ``rows[domain][split]`` and ``labels[dataset][answer][split]`` count rows (a row with two
    answers counts under both); ``options`` is each data set's label set. ``not_here`` counts, per
    data set, what a table lists beyond a declared subset, ``unlabelled`` what is declared without a
    usable label. ``files`` are the SHA-256 of the parquet files, ``fingerprint`` that of them all.
    """

    source: str
    seed: int
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    labels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    not_here: dict[str, int] = field(default_factory=dict)
    unlabelled: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    def count(self, row: Mapping[str, Any]) -> None:
        """Add one row to the counts."""
        split = row["split"]
        by_split = self.rows.setdefault(row["domain"], {})
        by_split[split] = by_split.get(split, 0) + 1
        by_answer = self.labels.setdefault(row["dataset"], {})
        for answer in row["answers"]:
            counts = by_answer.setdefault(answer, {})
            counts[split] = counts.get(split, 0) + 1

    def rows_in(self, split: str) -> int:
        """Rows of ``split`` over all domains."""
        return sum(counts.get(split, 0) for counts in self.rows.values())


class SplitWriter:
    """Streams rows into ``<folder>/<split>.parquet``; at most 64 rows a split are held in memory.

    A context manager: leaving it writes what is still held and closes the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Start with no files; one is opened per split that gets a row."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files, after writing what is held unless something failed."""
        with self._open:
            for split in list(self._held) if kind is None else []:
                self._flush(split)

    def add(self, row: dict[str, Any]) -> None:
        """Write one row: images and mask as ``{"bytes", "path"}``, the rest as ``FEATURES``."""
        held = self._held[row["split"]]
        held.append(row)
        if len(held) == _ROWS_PER_GROUP:
            self._flush(row["split"])

    def _flush(self, split: str) -> None:
        if split not in self._writers:
            writer = pq.ParquetWriter(self._folder / f"{split}.parquet", SCHEMA)
            self._writers[split] = self._open.enter_context(writer)
        self._writers[split].write_table(pa.Table.from_pylist(self._held.pop(split), SCHEMA))


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling of ``out`` that takes its place when the block ends without an error.

    On any error, Ctrl-C included, the sibling is removed and ``out`` is as it was.
    ``AssemblyError`` where it cannot be written, or where ``out`` holds something else.
    """
    partial, old = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.old")
    try:
        if old.exists() and not out.exists():
            old.rename(out)  # an earlier run was killed between its two renames
        _check_replaceable(out)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        partial.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise AssemblyError(
            f"The assembly cannot be written to {out} ({error}): choose another "
            "folder or free the disk."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def finish(assembly: Assembly, folder: Path) -> Assembly:
    """Hash the parquet files of ``folder`` into ``assembly`` and write ``assembly.json``."""
    for path in sorted(folder.glob("*.parquet")):
        with path.open("rb") as file:
            assembly.files[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    summary = json.dumps(assembly.files, sort_keys=True).encode()
    assembly.fingerprint = hashlib.sha256(summary).hexdigest()
    text = json.dumps(asdict(assembly), indent=2, ensure_ascii=False)
    (folder / ASSEMBLY_FILE).write_text(text + "\n", encoding="utf-8")
    return assembly


def load_assembled(folder: Path) -> DatasetDict:
    """The assembled splits of ``folder`` as datasets with ``FEATURES``; absent ones are left out.

    The first load writes a memory-mapped copy below ``folder``, which goes when the folder is
    assembled again. ``AssemblyError`` where ``folder`` holds no complete assembly.
    """
    files = load_assembly(folder).files
    return DatasetDict(
        {
            split: Dataset.from_parquet(
                str(Path(folder) / f"{split}.parquet"),
                split=NamedSplit(split),
                features=FEATURES,
                cache_dir=str(Path(folder) / ".cache"),
            )
            for split in SPLITS
            if f"{split}.parquet" in files
        }
    )


def load_assembly(folder: Path) -> Assembly:
    """What ``assembly.json`` of ``folder`` says; ``AssemblyError`` where it is no assembly."""
    path = Path(folder) / ASSEMBLY_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["refused"] = [Refusal(**one) for one in values["refused"]]
        values["duplicates"] = [Duplicate(**one) for one in values["duplicates"]]
        return Assembly(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssemblyError(
            f"{folder} holds no assembled data set ({path.name} is missing or damaged): "
            "assemble it first with notebook 01."
        ) from error


def _check_replaceable(out: Path) -> None:
    if out.is_dir() and (out / ASSEMBLY_FILE).exists() or not out.exists():
        return
    if not out.is_dir() or any(os.scandir(out)):
        raise AssemblyError(
            f"{out} exists and holds no assembled data set; it is left as it is: choose another "
            "folder."
        )
