"""Rows written as parquet shards, each by one process, each done or not there at all.

A shard is made from a fixed list of items and says so in its note (``train-00003.json``), which is
written last. A run that was killed is taken up where it stood: shards whose note is there and names
the same items are kept, the others are written again. Memory holds one row group per process.
"""

import hashlib
import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from qoq_lib.data.example import FEATURES, check_row, ecg_array
from qoq_lib.runs import OneSentenceError

SCHEMA: pa.Schema = FEATURES.arrow_schema
ROWS_PER_SHARD = 1024
_ROWS_PER_GROUP = 64
_BYTES_PER_GROUP = 2**25

INDEX_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "domain": pa.string(),
        "dataset": pa.string(),
        "patient_id": pa.string(),
        "split": pa.string(),
        "answers": pa.list_(pa.string()),
        "shard": pa.string(),
        "position": pa.int32(),
        "content": pa.string(),
        "look": pa.uint64(),
    }
)
"""One line per row: what it is of, in which shard and where, and its two fingerprints.

``content`` is the SHA-256 of its images and ECG, ``look`` the difference hash of its first image.
"""


class AssemblyError(OneSentenceError, RuntimeError):
    """A data set cannot be assembled, written or loaded; the message says why and what to do."""


@dataclass(frozen=True)
class Refusal:
    """A case that was left out because a file of it cannot be used."""

    dataset: str
    record: str
    reason: str


@dataclass(frozen=True)
class Made:
    """A row of ``FEATURES``, images as ``{"bytes", "path"}``, and its first image's ``look_of``."""

    row: dict[str, Any]
    look: int | None


Maker = Callable[[Any, str], Made | Refusal]
"""From an item and its split to its row; a module's function (or a partial of one), to be sent."""


@dataclass(frozen=True)
class Shard:
    """A file to be: ``<name>.parquet`` with the rows of ``items``, all of one ``split``."""

    name: str
    split: str
    items: Sequence[Any]


@dataclass(frozen=True)
class Note:
    """What a shard holds: the key of its items, size and SHA-256 of its file, and its index.

    Without rows there is no file, and ``sha256`` is empty.
    """

    name: str
    key: str
    size: int = 0
    sha256: str = ""
    refused: list[Refusal] = field(default_factory=list)
    index: list[dict[str, Any]] = field(default_factory=list)


def shards_of(items: Sequence[Any], splits: Sequence[str]) -> list[Shard]:
    """``items`` by split and in their order, at most ``ROWS_PER_SHARD`` in a shard."""
    by_split: dict[str, list[Any]] = defaultdict(list)
    for item, split in zip(items, splits, strict=True):
        by_split[split].append(item)
    return [
        Shard(f"{split}-{start // ROWS_PER_SHARD:05d}", split, some[start : start + ROWS_PER_SHARD])
        for split, some in by_split.items()
        for start in range(0, len(some), ROWS_PER_SHARD)
    ]


def write_shards(
    folder: Path, shards: Sequence[Shard], make: Maker, workers: int = 1
) -> Iterator[Note]:
    """Write the shards that ``folder`` lacks, in ``workers`` processes; all notes in order.

    What else lies in ``folder`` is removed. ``RowError`` where a row breaks the schema,
    ``AssemblyError`` where a process dies.
    """
    expected = {f"{shard.name}{end}" for shard in shards for end in (".parquet", ".json")}
    for path in folder.iterdir():
        if path.name not in expected:
            path.unlink()
    jobs = ((folder, shard, make) for shard in shards)
    return _spread(jobs, workers) if workers > 1 else (_write(*job) for job in jobs)


def has_shards(folder: Path) -> bool:
    """Whether ``folder`` holds a shard that is complete."""
    return any(folder.glob("*.json"))


def _spread(jobs: Iterable[tuple[Path, Shard, Maker]], workers: int) -> Iterator[Note]:
    """``_write`` of each job in turn, by new processes; few jobs wait, as each holds its items."""
    waiting: deque[Any] = deque()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        for job in jobs:
            waiting.append(pool.submit(_write, *job))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise AssemblyError(
            "A process of the assembly died, as when memory runs out: run it again with fewer "
            "workers; what is complete is kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write(folder: Path, shard: Shard, make: Maker) -> Note:
    """The note of a shard, which is written unless it is complete."""
    key = _key(shard, make)
    note, file = folder / f"{shard.name}.json", folder / f"{shard.name}.parquet"
    kept = _read_note(note)
    if kept and kept.key == key and (file.stat().st_size if file.exists() else 0) == kept.size:
        return kept
    for stale in (note, file):
        stale.unlink(missing_ok=True)
    refused: list[Refusal] = []
    index: list[dict[str, Any]] = []
    with _RowGroups(file) as groups:
        for item in shard.items:
            made = make(item, shard.split)
            if isinstance(made, Refusal):
                refused.append(made)
                continue
            check_row(made.row)
            groups.add(made.row)
            index.append(_line(made, file.name, len(index)))
    written = Note(shard.name, key, *_size_and_hash(file), refused, index)
    temporary = note.with_suffix(".json.part")
    temporary.write_text(json.dumps(asdict(written)), encoding="utf-8")
    os.replace(temporary, note)
    return written


class _RowGroups:
    """Streams rows into a parquet file, which takes its name when the block ends without error.

    A block without rows leaves no file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_suffix(".parquet.part")
        self._writer: pq.ParquetWriter | None = None
        self._held: list[dict[str, Any]] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._held:
                self._flush()
        finally:
            if self._writer:
                self._writer.close()
        if kind is None and self._writer:
            os.replace(self._temporary, self._path)

    def add(self, row: dict[str, Any]) -> None:
        self._held.append(row)
        self._bytes += sum(len(image["bytes"] or b"") for image in row["images"] or [])
        if len(self._held) == _ROWS_PER_GROUP or self._bytes > _BYTES_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer = self._writer or pq.ParquetWriter(self._temporary, SCHEMA)
        self._writer.write_table(pa.Table.from_pylist(self._held, SCHEMA))
        self._held, self._bytes = [], 0


def _key(shard: Shard, make: Maker) -> str:
    """SHA-256 of all that decides the rows of a shard: schema, maker, split and items."""
    digest = hashlib.sha256(f"{SCHEMA} {_words(make)} {shard.split}".encode())
    for item in shard.items:
        digest.update(repr(item).encode())
    return digest.hexdigest()


def _words(make: Any) -> str:
    function = getattr(make, "func", make)
    return f"{function.__module__}.{function.__qualname__} {getattr(make, 'keywords', {})}"


def _line(made: Made, file: str, position: int) -> dict[str, Any]:
    known = {name: made.row[name] for name in INDEX_SCHEMA.names if name in made.row}
    place = {"shard": file, "position": position}
    return known | place | {"content": _content(made.row), "look": made.look}


def _content(row: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for image in row["images"] or []:
        data = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
        digest.update(hashlib.sha256(data).digest())
    ecg = ecg_array(row)
    digest.update(b"" if ecg is None else ecg.tobytes())
    return digest.hexdigest()


def _size_and_hash(file: Path) -> tuple[int, str]:
    if not file.exists():
        return 0, ""
    with file.open("rb") as stream:
        return file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def _read_note(path: Path) -> Note | None:
    """The note at ``path``, ``None`` where there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["refused"] = [Refusal(**one) for one in values["refused"]]
        return Note(**values)
    except (OSError, ValueError, KeyError, TypeError):
        return None
