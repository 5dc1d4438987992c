"""An assembled data set on disk: parquet shards per split, their index, and ``assembly.json``.

``<split>-00000.parquet`` and so on hold the rows, ``index.parquet`` a line per row
(``shards.INDEX_SCHEMA``). All is written in a sibling folder, ``<name>.partial``, which takes its
final name when it is complete; it stays after a kill if a shard is done, for the next run to go on.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, NamedSplit

from qoq_lib.data.example import FEATURES, SPLITS
from qoq_lib.data.leaks import COLUMNS as LEAK_COLUMNS
from qoq_lib.data.leaks import Leaks, leak_report
from qoq_lib.data.shards import INDEX_SCHEMA, AssemblyError, Note, Refusal, has_shards
from qoq_lib.runs import replaced_folder

ASSEMBLY_FILE = "assembly.json"
INDEX_FILE = "index.parquet"


@dataclass(frozen=True)
class Duplicate:
    """Row ids whose files are the same byte for byte, and whether their labels are, too."""

    ids: list[str]
    same_label: bool


@dataclass
class Assembly:
    """What was assembled.

    ``rows[domain][split]`` and ``labels[dataset][answer][split]`` count rows (a row with two
    answers counts under both); ``options`` is each data set's label set. ``not_here`` counts,
    per data set, what a table lists beyond a declared subset, ``unlabelled`` what is declared
    without a usable label, ``balanced_out`` the training rows that balancing left out.
    ``leaks`` counts what the splits share. ``files`` are the SHA-256 of the shards,
    ``fingerprint`` that of them all.
    """

    sources: str
    seed: int
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    labels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    not_here: dict[str, int] = field(default_factory=dict)
    unlabelled: dict[str, int] = field(default_factory=dict)
    balanced_out: dict[str, int] = field(default_factory=dict)
    leaks: dict[str, Leaks] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    def count(self, row: Mapping[str, Any]) -> None:
        """Add one row, or its line of the index, to the counts."""
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


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A sibling of ``out`` that takes its place when the block ends without an error.

    It is the one that an interrupted run left, if there is one. On any error, Ctrl-C included,
    ``out`` is as it was and the sibling goes unless it holds a complete shard. ``AssemblyError``
    where it cannot be written, or where ``out`` holds something else.
    """
    partial = out
    try:
        with replaced_folder(out) as partial:
            _check_replaceable(out)
            partial.mkdir(parents=True, exist_ok=True)
            yield partial
    except OSError as error:
        raise AssemblyError(
            f"The assembly cannot be written to {out} ({error}): choose another "
            "folder or free the disk."
        ) from error
    finally:
        if partial != out and partial.is_dir() and not has_shards(partial):
            shutil.rmtree(partial, ignore_errors=True)


def collect(assembly: Assembly, folder: Path, notes: Iterable[Note]) -> Iterator[Note]:
    """Count the shards of ``folder`` into ``assembly`` and write their index, note by note.

    Each note is yielded once it is counted; the index is complete when they are used up.
    """
    temporary = folder / f"{INDEX_FILE}.part"
    with pq.ParquetWriter(temporary, INDEX_SCHEMA) as index:
        for note in notes:
            assembly.refused += note.refused
            if note.sha256:
                assembly.files[f"{note.name}.parquet"] = note.sha256
                index.write_table(pa.Table.from_pylist(note.index, INDEX_SCHEMA))
            for line in note.index:
                assembly.count(line)
            yield note
    os.replace(temporary, folder / INDEX_FILE)


def finish(assembly: Assembly, folder: Path) -> Assembly:
    """Count the leaks, write ``assembly.json`` and drop the notes of the shards."""
    assembly.leaks = leak_report(load_index(folder, LEAK_COLUMNS))
    assembly.files = dict(sorted(assembly.files.items()))
    summary = json.dumps(assembly.files).encode()
    assembly.fingerprint = hashlib.sha256(summary).hexdigest()
    for note in folder.glob("*.json"):
        note.unlink()
    text = json.dumps(asdict(assembly), indent=2, ensure_ascii=False)
    (folder / ASSEMBLY_FILE).write_text(text + "\n", encoding="utf-8")
    return assembly


def load_index(folder: Path, columns: Sequence[str] = INDEX_SCHEMA.names) -> pa.Table:
    """The index of an assembly, a line per row; ``AssemblyError`` where there is none."""
    try:
        return pq.read_table(Path(folder) / INDEX_FILE, columns=list(columns))
    except (OSError, pa.ArrowInvalid) as error:
        raise AssemblyError(
            f"{folder} holds no index of an assembled data set ({error}): assemble it first with "
            "notebook 01."
        ) from error


def load_assembled(folder: Path) -> DatasetDict:
    """The assembled splits of ``folder`` as datasets with ``FEATURES``; absent ones are left out.

    The first load writes a memory-mapped copy below ``folder``, which goes when the folder is
    assembled again. ``AssemblyError`` where ``folder`` holds no complete assembly.
    """
    files = load_assembly(folder).files
    shards = {split: [name for name in files if name.startswith(f"{split}-")] for split in SPLITS}
    return DatasetDict(
        {
            split: Dataset.from_parquet(
                [str(Path(folder) / name) for name in names],
                split=NamedSplit(split),
                features=FEATURES,
                cache_dir=str(Path(folder) / ".cache"),
            )
            for split, names in shards.items()
            if names
        }
    )


def load_assembly(folder: Path) -> Assembly:
    """What ``assembly.json`` of ``folder`` says; ``AssemblyError`` where it is no assembly."""
    path = Path(folder) / ASSEMBLY_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["refused"] = [Refusal(**one) for one in values["refused"]]
        values["duplicates"] = [Duplicate(**one) for one in values["duplicates"]]
        values["leaks"] = {name: Leaks(**one) for name, one in values["leaks"].items()}
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
