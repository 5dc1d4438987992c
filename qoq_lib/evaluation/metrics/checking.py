"""What a table of predictions must hold before it is scored."""

import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from qoq_lib.runs import OneSentenceError

NEEDED = ("id", "domain", "dataset", "patient_id", "options", "answers", "completion")


class PredictionsError(OneSentenceError, ValueError):
    """The predictions table cannot be scored or made; the message says why."""


def check_predictions(predictions: pd.DataFrame) -> None:
    """Refuse a table with a row that cannot be scored as it stands.

    Raises:
        PredictionsError: the table is empty, a column of ``NEEDED`` is missing, an id is there
            twice, or a cell cannot be what it should be; the message names row and column.
    """
    missing = [name for name in NEEDED if name not in predictions.columns]
    if missing:
        raise PredictionsError(f"The predictions lack the column {missing[0]!r}.")
    if predictions.empty:
        raise PredictionsError("There are no predictions to score: the table has no rows.")
    ids = list(column(predictions, "id"))
    for name, (fits, remedy) in _CELLS.items():
        for number, value in enumerate(column(predictions, name)):
            if not fits(value) and (value is not None or name in NEEDED):
                row = number if ids[number] is None else repr(ids[number])
                raise PredictionsError(f"Row {row} has the {name} {_told(value)}: {remedy}.")
    if twice := [key for key, count in pd.Series(ids).value_counts().items() if count > 1]:
        raise PredictionsError(f"Several rows have the id {twice[0]!r}: keep one answer of each.")


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column with ``None`` for what is missing: all where the table does not have it."""
    if name not in table:
        return pd.Series([None] * len(table), index=table.index, dtype=object)
    return table[name].astype(object).where(table[name].notna(), None)


def _is_known(value: Any) -> bool:
    return value is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_labels(value: Any) -> bool:
    """Not a text, whose letters would be taken for labels."""
    listed = isinstance(value, list | tuple | np.ndarray)
    return listed and len(value) > 0 and all(map(_is_text, value))


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _are_boxes(value: Any) -> bool:
    try:
        boxes = np.array([list(box) for box in value], float)
    except (TypeError, ValueError):
        return False
    return not boxes.size or (boxes.shape[1:] == (4,) and bool(np.isfinite(boxes).all()))


_CELLS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (_is_known, "give every row the id of its question"),
    "domain": (_is_text, "name its clinical domain"),
    "dataset": (_is_text, "name the data set that it is of"),
    "patient_id": (_is_known, "give every row its patient, as intervals are over patients"),
    "options": (_are_labels, "give the list of labels to choose from"),
    "answers": (_are_labels, "give the list of labels that apply, at least one"),
    "completion": (_is_text, "write an empty text where the model said nothing"),
    "boxes": (_are_boxes, "give n x 4 numbers, or nothing where they are not known"),
    "n_tokens": (_is_number, "give a number, or nothing where it is not known"),
    "age_years": (_is_number, "give a number, or nothing where it is not known"),
}
"""What each cell must be, and what to do where it is not; what is not needed may be missing."""


def _told(value: Any) -> str:
    return reprlib.repr(value.tolist() if isinstance(value, np.ndarray) else value)
