"""Parquet shards under the names that the Hub knows: ``train-00000-of-00003.parquet``."""

from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features


class ShardWriter:
    """Writes one split of one configuration to ``<folder>/data/<config>/<split>-*``.

    The shards get their final names when the block ends; without a row there is none, as datasets
    cannot load an empty split.

    Attributes:
        rows: written so far.
        size: of them in memory, in bytes.
        paths: the files, once the block has ended.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        split: str,
        features: Features,
        *,
        rows_per_shard: int,
        rows_per_group: int,
    ) -> None:
        self.config, self.split, self.features = config, split, features
        self.rows, self.size = 0, 0
        self.paths: list[Path] = []
        self._folder = Path(folder) / "data" / config
        self._per_shard, self._per_group = rows_per_shard, rows_per_group
        self._parts: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._in_shard = 0
        self._waiting: list[pa.Table] = []
        self._waits = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._flush(self._waits)
        self._close()
        if kind is None:
            self._name()

    def write(self, table: pa.Table) -> None:
        """Add rows that have the columns of ``features``."""
        self._waiting.append(table)
        self._waits += len(table)
        self._flush(self._waits - self._waits % self._per_group)

    def _flush(self, rows: int) -> None:
        """Write the first so many of the waiting rows, a row group at a time."""
        if not rows:
            return
        table = pa.concat_tables(self._waiting)
        for start in range(0, rows, self._per_group):
            self._write(table.slice(start, min(self._per_group, rows - start)))
        self._waiting, self._waits = [table.slice(rows)], self._waits - rows

    def _write(self, table: pa.Table) -> None:
        full = self._in_shard >= self._per_shard
        writer = self._begin_shard() if self._writer is None or full else self._writer
        writer.write_table(table)
        self._in_shard += len(table)
        self.rows += len(table)
        self.size += table.nbytes

    def _begin_shard(self) -> pq.ParquetWriter:
        self._close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._parts.append(self._folder / f"{self.split}-{len(self._parts):05d}.part")
        # Chunks by content: a next release stores and sends only what has changed.
        self._writer = pq.ParquetWriter(
            self._parts[-1],
            self.features.arrow_schema,
            compression="zstd",
            use_content_defined_chunking=True,
            write_page_index=True,
        )
        self._in_shard = 0
        return self._writer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _name(self) -> None:
        count = len(self._parts)
        for number, part in enumerate(self._parts):
            name = f"{self.split}-{number:05d}-of-{count:05d}.parquet"
            self.paths.append(part.rename(self._folder / name))
