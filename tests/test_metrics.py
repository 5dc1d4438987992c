"""Metrics: hand-computed figures, the trivial floors, and what cannot change a score."""

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_lib.evaluation.metrics import FLOORS, MEASURES, PredictionsError, evaluate
from qoq_lib.evaluation.predict import save_predictions


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


@pytest.mark.parametrize("options", ["a", "a;b"])
def test_a_data_set_with_one_class(options: str) -> None:
    right = evaluate(table([("a", "a"), ("a", "a")], options))["overall"]
    assert [right[name] for name in MEASURES] == [1.0, 1.0, 1.0, 0.0]
    assert right["floors"]["constant"] == 1.0
    wrong = evaluate(table([("a", ""), ("a", "")], options))["overall"]
    assert [wrong[name] for name in MEASURES] == [0.0, 0.0, 0.0, 1.0]


def test_data_sets_then_domains_then_overall_unweighted() -> None:
    predictions = pd.concat(
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
    both = pd.concat([table([("a", "a")] * 3, dataset="one"), table([("a", "b")], dataset="two")])
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
    return pd.concat(parts, ignore_index=True)


def flat(scores: dict[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}/")
        elif name != "n":
            found[prefix + name] = value
    return found


@settings(max_examples=20)
@given(cases, st.randoms(use_true_random=False))
def test_order_and_duplication_of_rows_cannot_matter(rows: list[Any], random: Any) -> None:
    predictions = built(rows)
    expected = flat(evaluate(predictions))
    assert all(0 <= value <= 1 for value in expected.values())
    order = random.sample(range(len(rows)), len(rows))
    assert flat(evaluate(predictions.iloc[order])) == pytest.approx(expected)
    assert flat(evaluate(pd.concat([predictions] * 3))) == pytest.approx(expected)


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
