"""Tables with odd rows: one sentence that names row and column, and nothing guessed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fictions import predictions

from qoq_lib.evaluation.cases import as_seen
from qoq_lib.evaluation.metrics import PredictionsError, answered, evaluate


def odd(name: str, value: Any) -> pd.DataFrame:
    """Predictions whose row 'ct/1' has another value in a column."""
    rows = predictions(("ct",))
    cells = list(rows[name]) if name in rows else [None] * len(rows)
    return rows.assign(**{name: pd.Series([cells[0], value, *cells[2:]], dtype=object)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, None) for name in ("domain", "dataset", "patient_id", "options", "answers")],
        *[("completion", value) for value in (None, np.nan, 7)],
        *[("answers", value) for value in ([], np.array([]), "nodule", [None])],
        *[("options", "nodule; cyst"), ("domain", np.nan), ("n_tokens", "many")],
        *[("age_years", "old"), ("age_years", "")],
        *[("boxes", value) for value in ([1.0, 2.0], [[0, 0, 1]], [[0, 0, 1, np.nan]], "[]")],
        *[("option_logprobs", [-1.0, value, -1.0, -1.0]) for value in (None, np.nan, np.inf, "x")],
        *[
            ("option_logprobs", value)
            for value in ([-np.inf] * 4, "[-1, -1, -1, -1]", [[-1.0] * 4])
        ],
        *[("mask", value) for value in (b"no picture", "mask.png")],
    ],
)
def test_an_odd_cell_is_named(name: str, value: Any) -> None:
    with pytest.raises(PredictionsError, match=f"^Row 'ct/1' has (the|a) {name} .+[:,] .+") as told:
        evaluate(odd(name, value))
    assert str(told.value).count("\n") == 0


def test_an_id_is_there_once() -> None:
    with pytest.raises(PredictionsError, match="^Row 1 has the id None: give every row the id"):
        evaluate(odd("id", np.nan))
    with pytest.raises(PredictionsError, match="^Several rows have the id 'ct/0': keep one"):
        evaluate(odd("id", "ct/0"))


def test_an_option_may_be_impossible() -> None:
    rows = predictions(("ct",))
    odds = [[0.0 if name in true else -np.inf for name in names]
            for names, true in zip(rows["options"], rows["answers"], strict=True)]  # fmt: skip
    found = evaluate(rows.assign(option_logprobs=odds))["overall"]
    assert found["auroc"] == 1.0 and found["calibration_error"] == 0.0


def test_what_is_missing_may_be_none_or_nan() -> None:
    rows = predictions(("ct",))
    for nothing in (None, np.nan):
        names = ("boxes", "mask", "n_tokens", "sex", "age_years", "option_logprobs", "image_size")
        bare = rows.assign(**dict.fromkeys(names, nothing))
        assert evaluate(bare) == evaluate(rows)
        seen = as_seen([{"images": []}] * len(rows), answered(bare))
        assert all(row["regions"] is None for row in seen)
    mixed = pd.concat([rows.head(4).assign(boxes=[[[0.0, 0.0, 5.0, 5.0]]] * 4), rows.tail(4)])
    assert evaluate(mixed)["overall"]["rows"]["box_iou"] == 4
    texts = rows.assign(n_tokens=["3"] * 8, age_years=["40"] * 8)
    assert evaluate(texts)["overall"]["tokens"] == 3 and evaluate(texts)["subgroups"]["age"]
