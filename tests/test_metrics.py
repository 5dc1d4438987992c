"""Metrics: hand-computed figures, the trivial floors, and what cannot change a score."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fictions import joined
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, recall_score
from sklearn.preprocessing import MultiLabelBinarizer

from qoq_lib.answers import read_answer
from qoq_lib.evaluation.metrics import FLOORS, MEASURES, PredictionsError, evaluate
from qoq_lib.evaluation.predict import save_predictions
from qoq_lib.evaluation.report import score_table


def table(
    pairs: list[tuple[str, str]], options: str = "a;b", domain: str = "ct", dataset: str = "x"
) -> pd.DataFrame:
    """One row per (true, completion's box); labels and options are joined by ';'."""
    rows = [
        {
            "id": f"{dataset}-{index}",
            "domain": domain,
            "dataset": dataset,
            "patient_id": f"p{index}",
            "options": options.split(";"),
            "answers": true.split(";"),
            "completion": f"\\boxed{{{said}}}",
        }
        for index, (true, said) in enumerate(pairs)
    ]
    return pd.DataFrame(rows)


def test_two_classes_by_hand() -> None:
    # a: precision 1, recall 1/2; b: precision 1/2, recall 1/2
    found = evaluate(table([("a", "a"), ("a", "b"), ("b", "b"), ("b", "nothing")]))["overall"]
    assert found["n"] == 4
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["balanced_accuracy"] == pytest.approx(0.5)
    assert found["exact_match"] == pytest.approx(0.5)
    assert found["invalid_rate"] == pytest.approx(0.25)
    assert found["floors"] == pytest.approx(
        {"constant": 1 / 3, "invalid": 0.0, "all_options": 2 / 3}
    )


def test_several_labels_by_hand() -> None:
    # a: hit, hit; b: missed once, hit once; c never occurs and is claimed once
    pairs = [("a;b", "a, c"), ("b;a", "a, b")]
    found = evaluate(table(pairs, "a;b;c"))["overall"]
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["exact_match"] == 0.5


def test_a_right_label_beside_what_is_no_option_is_no_exact_match() -> None:
    found = evaluate(table([("a", "a, or not, who knows"), ("b", "b")]))["overall"]
    assert found["exact_match"] == found["invalid_rate"] == 0.5
    assert found["macro_f1"] == found["jaccard"] == 1.0


def test_naming_more_labels_than_apply_costs() -> None:
    # a: hits 1/2 (of two labels named) and 1, said twice; b: missed; c: named but never true
    found = evaluate(table([("a", "a, c"), ("a", "a"), ("b", "a")], "a;b;c"))["overall"]
    a, b, c = 2 * 1.5 / (2 + 3), 0.0, 0.0
    assert found["penalised_f1"] == pytest.approx((a + b + c) / 3)
    assert found["macro_f1"] == pytest.approx((2 * 2 / (2 + 3) + 0) / 2)
    assert found["jaccard"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    modest = evaluate(table([("a;b", "a"), ("b", "b")], "a;b;c"))["overall"]
    assert modest["penalised_f1"] == modest["macro_f1"]


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 8])
def test_floors_of_balanced_classes(classes: int) -> None:
    names = [f"class {index}" for index in range(classes)]
    pairs = [(name, names[0]) for name in names * 6]
    found = evaluate(table(pairs, ";".join(names)))["overall"]
    assert found["macro_f1"] == pytest.approx(found["floors"]["constant"])
    assert found["floors"]["constant"] == pytest.approx(2 / (classes * (classes + 1)))
    assert found["floors"]["all_options"] == pytest.approx(2 / (classes + 1))
    listing = evaluate(table([(name, ", ".join(names)) for name in names], ";".join(names)))
    assert listing["overall"]["macro_f1"] == pytest.approx(2 / (classes + 1))
    assert listing["overall"]["exact_match"] == 0.0
    assert listing["overall"]["f1_above_floor"] == pytest.approx(0.0)
    constant = found["floors"]["constant"]
    assert listing["overall"]["penalised_f1"] == pytest.approx(constant)


def test_a_data_set_with_one_class() -> None:
    right = evaluate(table([("a", "a"), ("a", "a")]))["overall"]
    assert [right[name] for name in MEASURES] == [1, 1, 0, 1, 1, 1, 0, 9]
    assert right["floors"]["constant"] == 1.0
    wrong = evaluate(table([("a", ""), ("a", "")]))["overall"]
    assert [wrong[name] for name in MEASURES] == [0, 0, -1, 0, 0, 0, 1, 8]


def test_grounding_earns_nothing_for_naming_the_only_label() -> None:
    asked = table([("a", "a"), ("b", "a")])
    where = table([("lv", "lv"), ("lv", "lv")], "lv", dataset="where")
    both = evaluate(pd.concat([asked, where], ignore_index=True))
    assert both["overall"]["macro_f1"] == evaluate(asked)["overall"]["macro_f1"]
    alone = both["domains"]["ct"]["datasets"]["where"]
    assert "macro_f1" not in alone and alone["floors"] == {} and alone["invalid_rate"] == 0
    assert score_table({"model": evaluate(where)})["model"].isna().all()
    assert "f1" not in evaluate(where, paper=True)["overall"]


def test_data_sets_then_domains_then_overall_unweighted() -> None:
    predictions = joined(
        [
            table([("a", "a"), ("b", "b")] * 10, dataset="large"),
            table([("a", "b"), ("b", "a")], dataset="small"),
            table([("a", "a"), ("b", "a")], domain="ecg", dataset="leads"),
        ]
    )
    found = evaluate(predictions)
    assert list(found["domains"]) == ["ct", "ecg"]
    sets = found["domains"]["ct"]["datasets"]
    assert {name: scores["macro_f1"] for name, scores in sets.items()} == {"large": 1, "small": 0}
    assert found["domains"]["ct"]["macro_f1"] == pytest.approx(0.5)
    assert found["domains"]["ecg"]["macro_f1"] == pytest.approx(1 / 3)
    assert found["overall"]["macro_f1"] == pytest.approx((0.5 + 1 / 3) / 2)
    assert found["overall"]["n"] == 24
    assert set(found["overall"]["floors"]) == set(FLOORS)


def test_the_same_label_in_two_data_sets_is_two_classes() -> None:
    both = joined([table([("a", "a")] * 3, dataset="one"), table([("a", "b")], dataset="two")])
    assert evaluate(both)["overall"]["macro_f1"] == pytest.approx(0.5)


cases = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "a;c"]),
        st.sampled_from(["a", "b", "c", "a, b", "a, c", "z", ""]),
        st.sampled_from([("ct", "x"), ("ct", "y"), ("ecg", "z")]),
    ),
    min_size=1,
    max_size=12,
)


def built(rows: list[tuple[str, str, tuple[str, str]]]) -> pd.DataFrame:
    parts = [table([(true, said)], "a;b;c", *where) for true, said, where in rows]
    return joined(parts)


def flat(scores: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every score and bound of an interval by its path, counts of rows left out."""
    found: dict[str, Any] = {}
    for name, value in scores.items():
        if name in ("n", "rows", "patients", "patients_of", "too_few"):
            continue
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, list):
            found |= {f"{prefix}{name}/{end}": bound for end, bound in enumerate(value)}
        else:
            found[prefix + name] = value
    return found


@settings(max_examples=20, deadline=None)
@given(cases, st.randoms(use_true_random=False))
def test_order_and_duplication_of_rows_cannot_matter(rows: list[Any], random: Any) -> None:
    predictions = built(rows)
    expected = flat(evaluate(predictions, resamples=50))
    order = random.sample(range(len(rows)), len(rows))
    shuffled = evaluate(predictions.iloc[order], resamples=50)
    assert flat(shuffled) == pytest.approx(expected)
    thrice = evaluate(joined([predictions] * 3), resamples=50)
    assert flat(thrice) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(cases, st.permutations(["a", "b", "c"]))
def test_names_of_classes_cannot_matter(rows: list[Any], names: list[str]) -> None:
    swap = str.maketrans("abc", "".join(names))
    renamed = [(true.translate(swap), said.translate(swap), where) for true, said, where in rows]
    first, second = (evaluate(built(table), resamples=50) for table in (rows, renamed))
    assert flat(second["overall"]) == pytest.approx(flat(first["overall"]))
    for name in first["domains"]:
        for key, scores in first["domains"][name]["datasets"].items():
            other = second["domains"][name]["datasets"][key]["classes"]
            for label, parts in scores["classes"].items():
                assert flat(other[label.translate(swap)]) == pytest.approx(flat(parts))


@settings(max_examples=20, deadline=None)
@given(cases)
def test_scikit_learn_finds_the_same(rows: list[Any]) -> None:
    predictions = built([(true, said, ("ct", "x")) for true, said, _ in rows])
    found = evaluate(predictions, resamples=0)["overall"]
    said = [read_answer(text, "abc").labels for text in predictions["completion"]]
    binarizer = MultiLabelBinarizer(classes=["", *"abc"])
    true, guess = (binarizer.fit_transform(sets) for sets in (predictions["answers"], said))
    occurs = {"labels": np.flatnonzero(true.sum(axis=0)), "average": "macro", "zero_division": 0}
    assert found["macro_f1"] == pytest.approx(f1_score(true, guess, **occurs))
    assert found["balanced_accuracy"] == pytest.approx(recall_score(true, guess, **occurs))
    samples = jaccard_score(true, guess, average="samples", zero_division=0)
    assert found["jaccard"] == pytest.approx(samples)
    assert found["exact_match"] == pytest.approx(accuracy_score(true, guess))


def test_scores_survive_a_parquet_file(tmp_path: Any) -> None:
    predictions = table([("a", "a"), ("b", "a"), ("a;b", "b")])
    save_predictions(predictions, tmp_path / "trained.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["trained.parquet"]
    assert evaluate(pd.read_parquet(tmp_path / "trained.parquet")) == evaluate(predictions)


@pytest.mark.parametrize("column", ["id", "dataset", "completion", "options"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(PredictionsError, match=f"lack the column '{column}'"):
        evaluate(table([("a", "a")]).drop(columns=column))


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(PredictionsError, match="has no rows"):
        evaluate(table([("a", "a")]).iloc[:0])


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(
        ValueError, match="Unknown clinical domain 'radiology': use one of chest_xray"
    ):
        evaluate(table([("a", "a")], domain="radiology"))
