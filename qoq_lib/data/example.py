"""The row: one question about one patient's images, ECG and report, as every source emits it.

Missing is ``None``, never a placeholder value or a blank image. Boxes are ``[x1, y1, x2, y2]`` in
pixels of the original image, origin top left, with ``x2`` and ``y2`` exclusive. An ECG is float32
millivolts, leads x samples, at ``ecg_rate_hz``, its rows named by ``ecg_leads``. A mask is a
single-channel image of the first image's size, 0 for background and 255 for the lesion.

``images`` are bytes or the path of a file, 8-bit grey or RGB. A volume or a video is several of
them, its frames in order, all of one size; mask and boxes are then what lies in any of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from datasets import Features, Image, List, Value

from qoq_lib.domains import DOMAINS
from qoq_lib.runs import OneSentenceError

SPLITS = ("align", "train", "validation", "test")
"""``align`` holds perception questions for notebook 02; the others hold diagnosis questions."""

FEATURES = Features(
    {
        "id": Value("string"),
        "domain": Value("string"),
        "dataset": Value("string"),
        "patient_id": Value("string"),
        "split": Value("string"),
        "question": Value("string"),
        "options": List(Value("string")),
        "answers": List(Value("string")),
        "images": List(Image()),
        "ecg": List(List(Value("float32"))),
        "ecg_leads": List(Value("string")),
        "ecg_rate_hz": Value("float32"),
        "report": Value("string"),
        "mask": Image(),
        "boxes": List(List(Value("float32"))),
        "sex": Value("string"),
        "age_years": Value("float32"),
        "license": Value("string"),
    }
)


class RowError(OneSentenceError, ValueError):
    """A row breaks the schema; the message names the row and the field."""


def check_row(row: Mapping[str, Any]) -> None:
    """Raise ``RowError`` naming row and field when ``row`` breaks the conventions above."""
    where = f"Row {row.get('id')!r}"
    for field in FEATURES:
        if field not in row:
            raise RowError(f"{where} lacks the field {field!r}.")
    for field in ("id", "domain", "dataset", "patient_id", "split", "question"):
        if not isinstance(row[field], str) or not row[field]:
            raise RowError(f"{where}: {field!r} must be a non-empty string, got {row[field]!r}.")
    if row["domain"] not in DOMAINS:
        raise RowError(
            f"{where}: unknown domain {row['domain']!r}; use one of {', '.join(DOMAINS)}."
        )
    if row["split"] not in SPLITS:
        raise RowError(f"{where}: split {row['split']!r} is not one of {', '.join(SPLITS)}.")
    _check_labels(row, where)
    _check_media(row, where)


def check_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """``check_row`` on each row, and refuse an id that occurs twice."""
    seen: set[str] = set()
    for row in rows:
        check_row(row)
        if row["id"] in seen:
            raise RowError(f"Row {row['id']!r} occurs twice: ids must be unique.")
        seen.add(row["id"])


def ecg_array(row: Mapping[str, Any]) -> np.ndarray | None:
    """The row's ECG as float32 millivolts, leads x samples, or ``None``."""
    return None if row["ecg"] is None else np.asarray(row["ecg"], dtype=np.float32)


def _check_labels(row: Mapping[str, Any], where: str) -> None:
    options, answers = row["options"], row["answers"]
    if not options or len(set(options)) != len(options):
        raise RowError(f"{where}: 'options' must be a non-empty list without repeats.")
    if not answers:
        raise RowError(f"{where}: 'answers' is empty; a row without a label cannot be assembled.")
    for answer in answers:
        if answer not in options:
            raise RowError(
                f"{where}: the label {answer!r} is not in the label set {', '.join(options)}."
            )


def _check_media(row: Mapping[str, Any], where: str) -> None:
    if not row["images"] and row["ecg"] is None:
        raise RowError(f"{where} has neither an image nor an ECG.")
    if row["ecg"] is not None:
        ecg = ecg_array(row)
        if ecg is None or ecg.ndim != 2 or ecg.shape[0] != len(row["ecg_leads"] or []):
            raise RowError(f"{where}: 'ecg' must be leads x samples with one name per lead.")
        if not row["ecg_rate_hz"] or row["ecg_rate_hz"] <= 0:
            raise RowError(f"{where}: 'ecg_rate_hz' must be a positive number of samples a second.")
        if not np.isfinite(ecg).all():
            raise RowError(f"{where}: 'ecg' holds NaN or infinite samples.")
    for box in row["boxes"] or []:
        if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
            raise RowError(f"{where}: box {box!r} is not [x1, y1, x2, y2] with x1 < x2, y1 < y2.")
