"""Answers of a model that this package did not ask: a file of ids and completions."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

from qoq_lib.evaluation.metrics import PredictionsError
from qoq_lib.evaluation.predict import row_facts

_READERS: dict[str, Any] = {
    ".parquet": pd.read_parquet,
    ".csv": lambda path: _from_texts(pd.read_csv(path, dtype=str, keep_default_na=False)),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype={"id": str, "completion": str}),
}


def _from_texts(table: pd.DataFrame) -> pd.DataFrame:
    """A CSV's cells: an empty completion is an answer without a word, all else empty is missing."""
    known = table.astype(object).where((table != "") | (table.columns == "completion"), None)
    if "option_logprobs" in known:
        known["option_logprobs"] = known["option_logprobs"].map(_from_json, na_action="ignore")
    return known


def _from_json(text: str) -> Any:
    """A list written as text; what is none stays as it is, to be refused with its row."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def join_predictions(rows: Dataset, answers: pd.DataFrame | Path) -> pd.DataFrame:
    """The predictions table of completions made elsewhere, in the order of the rows.

    Args:
        rows: the assembled split that was asked.
        answers: a table, or a ``.parquet``, ``.csv`` or ``.jsonl`` file, with ``id`` and
            ``completion``. Further columns that ``evaluate`` knows may stand beside. Boxes in a
            completion are in pixels of the row's own image.

    Raises:
        PredictionsError: the file cannot be read, a column is missing, or an id is missing, unknown
            or there twice.
    """
    name = "The answers" if isinstance(answers, pd.DataFrame) else Path(answers).name
    table = answers if isinstance(answers, pd.DataFrame) else _read(Path(answers))
    for column in ("id", "completion"):
        if column not in table:
            raise PredictionsError(f"{name}: there is no column {column!r}; add it.")
    _check_ids(name, list(table["id"]), list(rows["id"]))
    silent = [key for key, text in zip(table["id"], table["completion"], strict=True)
              if not isinstance(text, str)]  # fmt: skip
    if silent:
        raise PredictionsError(
            f"{name}: {_some(silent)} without a completion; write an empty text where the model "
            "said nothing."
        )
    facts = pd.DataFrame([row_facts(row) for row in rows])
    added = table.drop(columns=[column for column in facts if column in table and column != "id"])
    return facts.merge(added, on="id", how="left", validate="one_to_one")


def _read(path: Path) -> pd.DataFrame:
    if path.suffix not in _READERS:
        raise PredictionsError(
            f"{path.name} is none of {', '.join(_READERS)}: save the answers as one of them."
        )
    try:
        table: pd.DataFrame = _READERS[path.suffix](path)
    except (OSError, ValueError) as error:
        raise PredictionsError(f"{path.name} cannot be read: {error}.") from error
    return table


def _check_ids(name: str, given: list[str], asked: list[str]) -> None:
    if nameless := int(pd.isna(pd.Series(given)).sum()):
        raise PredictionsError(
            f"{name}: {nameless} of {len(given)} rows have no id; give each that of its question."
        )
    counts = pd.Series(given).value_counts()
    twice = [key for key in dict.fromkeys(given) if counts[key] > 1]
    if twice:
        raise PredictionsError(f"{name}: {_some(twice)} more than once; keep one answer of each.")
    unknown = [key for key in given if key not in set(asked)]
    if unknown:
        raise PredictionsError(
            f"{name}: {_some(unknown)} not among the {len(asked)} questions; remove what is of "
            "another split or assembly."
        )
    missing = [key for key in asked if key not in set(given)]
    if missing:
        raise PredictionsError(
            f"{name}: {_some(missing)} of {len(asked)} questions without an answer; ask them too, "
            "since a question that is left out is not a right answer."
        )


def _some(ids: list[str]) -> str:
    noun = "id" if len(ids) == 1 else "ids"
    return f"{len(ids)} {noun} ({', '.join(map(repr, ids[:3]))}{', …' * (len(ids) > 3)})"
