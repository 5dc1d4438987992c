"""Predictions on disk: parts while they are made, then one file."""

import json
import shutil
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd


class Parts:
    """The batches of one predictions file, kept in a hidden folder beside it until all are there.

    The folder's name holds a hash of ``settings``: parts that were made in another way, or by other
    weights, are never mixed in. Without a ``path`` nothing is kept.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        key = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = path.with_name(f".{path.stem}.{key}.parts") if path else None

    def read(self, start: int, hashes: Sequence[str]) -> pd.DataFrame | None:
        """The batch that begins with row ``start``, if it was kept and asked the same prompts."""
        file = self._file(start)
        if file is None or not file.is_file():
            return None
        table = pd.read_parquet(file)
        return table if list(table["prompt_hash"]) == list(hashes) else None

    def write(self, start: int, table: pd.DataFrame) -> None:
        """Keep a batch."""
        if file := self._file(start):
            file.parent.mkdir(parents=True, exist_ok=True)
            save_predictions(table, file)

    def join(self, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """All batches as one table; with a path it is written there and the parts are removed."""
        table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        if self.path is None:
            return table
        save_predictions(table, self.path)
        for folder in self.path.parent.glob(f".{self.path.stem}.*.parts"):
            shutil.rmtree(folder)
        return pd.read_parquet(self.path)

    def _file(self, start: int) -> Path | None:
        return self.folder / f"{start:08d}.parquet" if self.folder else None


def save_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Write parquet under a temporary name, then rename it."""
    part = path.with_suffix(".part")
    predictions.to_parquet(part, index=False)
    part.replace(path)
