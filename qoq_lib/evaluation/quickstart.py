"""What notebook 00 asks and shows: three questions, and a completion read part by part."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

from qoq_lib.answers import read_answer, reasoning
from qoq_lib.data.phantom import make_phantom
from qoq_lib.data.phantom.plan import MIN_ROWS
from qoq_lib.data.prompts import with_options
from qoq_lib.data.readers import read_ecg, read_images
from qoq_lib.model.loading import LoadError, ModelSize
from qoq_lib.runs import OneSentenceError

TINY_PARAMETERS = 10_000_000
"""More than any tiny model has, and less than any published size."""


class QuestionError(OneSentenceError, ValueError):
    """A question cannot be asked as given; the message says what to change."""


def example_rows(
    *,
    image: str = "",
    ecg: str = "",
    report: str = "",
    question: str = "",
    options: str = "",
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Three questions as rows of ``data.example``: an ``image``, an ``ecg``, and ``both``.

    Each part is the phantom's unless the user gives it, and a row with a part of the user's has no
    true answer. A question of the user's is asked of the rows with a file or report of the user's,
    or of all three where there is none. In the phantom's ``both`` the report decides the answer.

    Args:
        image: path of an image file.
        ecg: path of a WFDB record, which tells its leads, rate and unit.
        report: text for ``both``.
        question: asked with ``options``.
        options: the labels to choose from, separated by semicolons.
        seed: of the phantom.

    Raises:
        QuestionError: a question without options, or options without a question.
        MediaError: a file is missing or unreadable.
    """
    asked = _own_question(question, options)
    picture, signal = _own_image(image), _own_ecg(ecg)
    given = {
        "image": picture,
        "ecg": signal,
        "both": signal | picture | ({"report": report} if report else {}),
    }
    about = {name for name, own in given.items() if own} or set(given)
    rows = {}
    for name, row in _phantom_rows(seed).items():
        own = given[name] | (asked if name in about else {})
        rows[name] = row | own | ({"answers": []} if own else {})
    return rows


def _phantom_rows(seed: int) -> dict[str, dict[str, Any]]:
    """A spot, an irregular rhythm, and a haze that only the report tells from another one."""
    phantom = make_phantom(MIN_ROWS, seed)
    signal = _row_of(phantom, "atrial fibrillation") | {"report": None}
    trace = {name: signal[name] for name in ("ecg", "ecg_leads", "ecg_rate_hz")}
    return {
        "image": _row_of(phantom, "lung mass") | {"report": None},
        "ecg": signal,
        "both": _row_of(phantom, "pulmonary edema") | trace,
    }


def _row_of(phantom: Dataset, diagnosis: str) -> dict[str, Any]:
    row: dict[str, Any] = phantom[list(phantom["answers"]).index([diagnosis])]
    return row


def _own_question(question: str, options: str) -> dict[str, Any]:
    listed = list(dict.fromkeys(filter(None, map(str.strip, options.split(";")))))
    if bool(question) != bool(listed):
        raise QuestionError(
            "A question needs options to choose from, and options need a question: give both, the "
            "options separated by semicolons, or neither."
        )
    return {"question": with_options(question, listed), "options": listed} if listed else {}


def _own_image(path: str) -> dict[str, Any]:
    if not path:
        return {}
    file = Path(path).expanduser()
    return {"id": file.name, "images": read_images(file), "boxes": None, "mask": None}


def _own_ecg(path: str) -> dict[str, Any]:
    if not path:
        return {}
    file = Path(path).expanduser()
    ecg = read_ecg(file)
    signal = {"ecg": ecg.signal, "ecg_leads": ecg.leads, "ecg_rate_hz": ecg.rate_hz}
    return {"id": file.name} | signal


def check_size(model: Any, size: ModelSize) -> None:
    """Refuse a model that would be asked in the way of another size.

    Raises:
        LoadError: a tiny model with a large ``size``, or the other way round.
    """
    count = model.num_parameters()
    if (size.base == "tiny") != (count < TINY_PARAMETERS):
        raise LoadError(
            f"This model has {count / 1e6:,.1f} million parameters, which is no model_size "
            f"{size.name!r}: give the model_size that it was trained at, as it decides how a "
            "question is put."
        )


def untrained_note(size: ModelSize) -> str:
    """What to tell a user who asks the untrained start of a size."""
    if size.base == "tiny":
        what = "RANDOM WEIGHTS: the answers below mean nothing"
    else:
        what = f"UNTRAINED ECG PATH on {size.base}: answers about ECGs mean nothing"
    return (
        f"NOTE: {what}. No run of model size {size.name} has a checkpoint yet: notebook 02 makes "
        "an aligned model and notebook 03 a trained one."
    )


def trace_table(
    row: Mapping[str, Any], completion: str, boxes: Sequence[Sequence[float]] = ()
) -> pd.DataFrame:
    """A question and its completion, part by part; one column named by the row.

    ``boxes`` are the completion's, in pixels of the row's own image.
    """
    answer = read_answer(completion, row["options"])
    parts = {
        "report": row["report"],
        "question": row["question"],
        "completion": completion if completion.strip() else repr(completion),
        "reasoning": reasoning(completion) or None,
        "regions (pixels)": [[round(value) for value in box] for box in boxes] or None,
        "answer": answer.labels or None,
        "readable": "yes" if answer.valid else "no",
        "true answer": row["answers"] or None,
    }
    return pd.DataFrame({row["id"]: parts}).loc[list(parts)]
