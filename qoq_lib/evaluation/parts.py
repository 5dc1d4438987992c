"""Predictions on disk: parts while they are made, then one file."""

import json
import shutil
from collections.abc import Mapping, Sequence
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from qoq_lib.evaluation.decoding import DECODING

_KEY_LENGTH = 16


class Parts:
    """What a model said, batch by batch: in a hidden folder until all is there, then in one file.

    The folder's name holds a hash of ``settings``: parts that were made in another way, or by other
    weights, are never mixed in; a finished file says so in its columns. Without a ``path`` nothing
    is kept.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        key = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]
        self.folder = path.with_name(f".{path.stem}.{key}.parts") if path else None
        scored = ["option_logprobs"] if settings["logprobs"] else []
        self._columns = ["completion", "n_tokens", *scored, "prompt_hash"]
        self._finished = self._read_finished(settings)

    def read(self, start: int, hashes: Sequence[str]) -> pd.DataFrame | None:
        """The batch that begins with row ``start``, if it was kept and asked the same prompts."""
        for table in (self._finished[start : start + len(hashes)], self._kept(start)):
            if list(table["prompt_hash"]) == list(hashes):
                return table[self._columns].reset_index(drop=True)
        return None

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
        key = "[0-9a-f]" * _KEY_LENGTH  # no other file's: its stem may go on behind a dot
        for folder in self.path.parent.glob(f".{escape(self.path.stem)}.{key}.parts"):
            shutil.rmtree(folder)
        return pd.read_parquet(self.path)

    def _read_finished(self, settings: Mapping[str, Any]) -> pd.DataFrame:
        """The file at ``path`` if it was made in this way (in whatever batches), else no rows."""
        nothing = pd.DataFrame(columns=self._columns)
        if self.path is None or not self.path.is_file():
            return nothing
        try:
            table = pd.read_parquet(self.path)
        except (OSError, ValueError):  # a torn file is made anew
            return nothing
        told = [*DECODING, "weights"]
        if not {*self._columns, *told} <= set(table):
            return nothing
        if ("option_logprobs" in table) != settings["logprobs"]:
            return nothing
        alike = all((table[name] == settings[name]).all() for name in told)
        return table if alike else nothing

    def _kept(self, start: int) -> pd.DataFrame:
        file = self._file(start)
        found = file is not None and file.is_file()
        return pd.read_parquet(file) if found else pd.DataFrame(columns=self._columns)

    def _file(self, start: int) -> Path | None:
        return self.folder / f"{start:08d}.parquet" if self.folder else None


def save_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Write parquet under a temporary name, then rename it."""
    part = path.with_suffix(".part")
    predictions.to_parquet(part, index=False)
    part.replace(path)
