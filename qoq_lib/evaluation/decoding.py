"""How the answers of a predictions table were decoded: as columns of it, and in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

DECODING = ("temperature", "max_new_tokens", "style", "seed")
"""The columns that say it, the same in every row that ``predict`` makes."""

Way = tuple[float, int, str, int]
"""One decoding: values of ``DECODING``."""


def loaded_from(model: Any) -> str | None:
    """What the weights were loaded from: a Hub id, with the commit where known, or a folder's name.

    Only the last part of a folder's path is told, as the rest may name a person. An adapter is
    loaded into its base, whose name this is; training since then does not change it.
    """
    name = str(model.name_or_path)
    if not name:
        return None
    *_, repository, snapshots, commit = ("", "", "", *Path(name).parts)
    if snapshots == "snapshots" and repository.startswith("models--"):
        return f"{repository.removeprefix('models--').replace('--', '/')}@{commit}"
    if Path(name).is_absolute() or Path(name).is_dir():
        return Path(name).resolve().name
    return name


def decoding_notes(predictions: Mapping[str, pd.DataFrame]) -> list[str]:
    """Sentences for a page: how each model's answers were decoded, and whether that differs."""
    ways = {name: _ways(table) for name, table in predictions.items()}
    together: dict[tuple[Way, ...], list[str]] = {}
    for name, own in ways.items():
        together.setdefault(tuple(own), []).append(name)
    notes = [_sentence(", ".join(names), own) for own, names in together.items()]
    last = list(ways)[-1]
    if other := [name for name, own in ways.items() if own and _differ(own, ways[last])]:
        notes.append(
            f"Decoded otherwise than the answers of {last}, so that a gain is not the model's "
            f"alone: {', '.join(other)}."
        )
    return notes


def _ways(table: pd.DataFrame) -> list[Way]:
    """The decodings of a table, mostly one; none where it (of an older schema) does not say."""
    if not set(DECODING) <= set(table):
        return []
    told = table[list(DECODING)].drop_duplicates()
    for name in ("temperature", "max_new_tokens", "seed"):  # texts in a file made elsewhere
        told[name] = pd.to_numeric(told[name], errors="coerce")
    if told.isna().any(axis=None):
        return []
    return sorted(
        (float(heat), int(tokens), str(style), int(seed))
        for heat, tokens, style, seed in told.itertuples(index=False)
    )


def _sentence(models: str, ways: Sequence[Way]) -> str:
    if not ways:
        return f"How the answers of {models} were decoded is not known."
    return f"Answers of {models}: {'; and '.join(dict.fromkeys(_words(*way) for way in ways))}."


def _words(temperature: float, tokens: int, style: str, seed: int) -> str:
    how = f"sampled at temperature {temperature:g} with seed {seed}" if temperature else "greedy"
    return f"{how}, at most {tokens:,} new tokens, {style} style"


def _differ(ways: Sequence[Way], last: Sequence[Way]) -> bool:
    """Whether two known decodings are not alike, seeds aside: they change no expectation."""
    return bool(last) and {way[:-1] for way in ways} != {way[:-1] for way in last}
