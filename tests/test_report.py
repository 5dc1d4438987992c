"""What is computed for figures and tables: curves, gains, score tables, cases, cells."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fictions import predictions, rollouts, scores

from qoq_lib.evaluation.curves import first_and_last, gain_table, groups, smoothed
from qoq_lib.evaluation.metrics import evaluate
from qoq_lib.evaluation.report import cases, read_predictions, score_table
from qoq_lib.evaluation.tables import cell_text, table
from qoq_lib.runs import RunError


def test_groups_without_signal_are_those_of_one_reward() -> None:
    found = groups(rollouts())
    ct = found[found["domain"] == "ct"].set_index("step")
    assert ct["without_signal"].tolist() == [False] * 3 + [True] * 3
    assert ct["all_correct"].tolist() == [False] * 3 + [True] * 3
    assert found[found["domain"] == "ecg"]["none_correct"].all()
    assert groups(rollouts().assign(reward=np.nan))["without_signal"].all()


def test_first_and_last_tenth_and_their_gain() -> None:
    ends = first_and_last(rollouts(steps=20))
    assert [sorted(part["step"].unique()) for part in ends.values()] == [[1, 2], [19, 20]]
    gain = gain_table(rollouts(steps=20))
    assert list(gain.index) == ["CT", "ECG", "All domains"]
    assert gain.loc["CT"].tolist() == [80, 0.25, 1.0, 0.75]
    assert gain.loc["All domains", "last"] == 0.5
    gap = rollouts(steps=20).query("not (domain == 'ecg' and step < 5)")
    assert np.isnan(gain_table(gap).loc["ECG", "first"])


def test_smoothing_leaves_gaps_out() -> None:
    values = pd.Series([0.0, np.nan, 1.0, 1.0], index=[1, 2, 3, 4])
    assert smoothed(values, 2).to_dict() == {1: 0.0, 3: 0.5, 4: 1.0}


def test_the_score_table_ends_with_the_overall_mean() -> None:
    found = score_table(scores(aligned=0.5, trained=1.0))
    assert list(found) == ["n", "aligned", "trained", "constant", "invalid", "all options"]
    assert found.loc["Overall", "trained"] == 1.0
    bare = score_table(scores(trained=0.5), "exact_match", floors=False)
    assert list(bare) == ["n", "trained"] and bare.loc["CT", "trained"] == 0.5


def test_cases_prefer_what_changed_and_take_domains_in_turn() -> None:
    before, after = predictions(right=0.5), predictions(right=0.9)
    best, worst = cases({"aligned": before, "trained": after}, count=4)
    assert best["domain"].tolist() == ["ct", "ecg", "ct", "ecg"]
    assert best["id"].iloc[0] == "ct/4"  # the first that only training got right
    assert not worst["exact_match"].any()
    alone, none = cases({"trained": predictions(right=1.0)})
    assert len(alone) == 6 and none.empty


def test_predictions_are_read_in_the_order_of_the_models(tmp_path: Any) -> None:
    with pytest.raises(RunError, match="run notebook 03"):
        read_predictions(tmp_path)
    for name in ("trained", "aligned", "another"):
        predictions().to_parquet(tmp_path / f"{name}.parquet")
    found = read_predictions(tmp_path)
    assert list(found) == ["aligned", "trained"]
    assert evaluate(found["trained"])["overall"]["macro_f1"] == 1.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (1.0, "1.00"),
        (12345.6, "12346"),
        (123.4, "123"),
        (99.96, "100"),
        (0.0, "0.00"),
        (float("nan"), "–"),
        (None, "–"),
        (12345, "12345"),
        (["a", "b"], "a, b"),
        (np.array([1, 2]), "1, 2"),
        (True, "True"),
    ],
)
def test_cells_have_three_significant_digits(value: Any, text: str) -> None:
    assert cell_text(value) == text


def test_a_table_has_both_forms_and_no_colour_of_its_own() -> None:
    frame = pd.DataFrame({"score": [0.123456], "text": ["<think>a & b</think>"]})
    shown = table(frame, "Caption")
    html = shown._repr_html_()
    assert "<think>" not in html and "&lt;think&gt;" in html and "0.123" in html
    assert "color" not in html and html == table(frame, "Caption")._repr_html_()
    assert repr(shown).startswith("Caption\n") and "<think>a & b</think>" in repr(shown)
    assert repr(table(frame.head(0), "None")) == "None\n(no rows)"
