"""Balancing: which training rows are left out, and that nothing else is."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoq_lib.data.assemble import assemble, load_assembled
from qoq_lib.data.balance import RULES, Balance, BalanceError, Kind, kept_rows

ROWS = [Kind("ct", "a", ("x",))] * 60 + [Kind("ct", "b", ("y",))] * 30 + [Kind("mri", "c", ())] * 10


def counts(rows: list[Kind], balance: Balance, by: str = "domain") -> Counter[str]:
    kept = kept_rows(rows, ["train"] * len(rows), balance, seed=0)
    return Counter(getattr(rows[index], by) for index in kept)


def test_each_rule_keeps_what_it_says() -> None:
    rows = [Kind(one.domain, one.dataset, one.answers or ("z",)) for one in ROWS]
    assert counts(rows, Balance()) == {"ct": 90, "mri": 10}
    assert counts(rows, Balance("domain")) == {"ct": 10, "mri": 10}
    # Shares go as the square root: 90 rows may stay for each of sqrt(90), where mri has 10.
    assert counts(rows, Balance("temperature", 2.0)) == {"ct": 30, "mri": 10}
    # A temperature below 1 makes a longer tail: all 90, and 90 * (10 / 90) ** 2 of the other.
    assert counts(rows, Balance("temperature", 0.5)) == {"ct": 90, "mri": 1}
    assert counts(rows, Balance(cap=20), "dataset") == {"a": 20, "b": 20, "c": 10}


def test_classes_are_evened_out_inside_each_data_set() -> None:
    rows = [Kind("ct", "a", ("x",))] * 9 + [Kind("ct", "a", ("x", "rare"))] * 3
    rows += [Kind("ct", "b", ("y",))] * 5
    kept = kept_rows(rows, ["train"] * len(rows), Balance("class"), seed=1)
    found = Counter((rows[index].dataset, rows[index].answers) for index in kept)
    assert found == {("a", ("x",)): 3, ("a", ("x", "rare")): 3, ("b", ("y",)): 5}


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["ct", "mri", "ecg"]),
            st.sampled_from(["a", "b"]),
            st.sampled_from(["train", "test"]),
        ),
        max_size=60,
    ),
    rule=st.sampled_from(RULES),
    temperature=st.floats(0.2, 5),
    cap=st.none() | st.integers(1, 8),
)
def test_held_out_rows_stay_and_no_domain_is_lost(
    rows: list[tuple[str, str, str]], rule: str, temperature: float, cap: int | None
) -> None:
    kinds = [Kind(domain, f"{domain}-{name}", (name,)) for domain, name, _ in rows]
    splits = [split for *_, split in rows]
    kept = kept_rows(kinds, splits, Balance(rule, temperature, cap), seed=3)  # type: ignore[arg-type]
    assert kept == sorted(set(kept))
    assert [n for n in kept if splits[n] == "test"] == [
        n for n, split in enumerate(splits) if split == "test"
    ]
    train = [n for n, split in enumerate(splits) if split == "train"]
    assert {kinds[n].domain for n in kept if splits[n] == "train"} == {
        kinds[n].domain for n in train
    }
    most = Counter(kinds[n].dataset for n in kept if splits[n] == "train")
    assert cap is None or all(count <= cap for count in most.values())


def test_a_balanced_phantom_is_smaller_only_in_training(tmp_path: Path) -> None:
    assembly = assemble("phantom", tmp_path / "out", rows=360, balance=Balance("domain"))
    whole = assemble("phantom", tmp_path / "whole", rows=360)
    train = {domain: counts["train"] for domain, counts in assembly.rows.items()}
    assert set(train.values()) == {min(one["train"] for one in whole.rows.values())}
    assert sum(assembly.balanced_out.values()) == whole.rows_in("train") - sum(train.values())
    assert (
        load_assembled(tmp_path / "out")["test"]["id"]
        == (load_assembled(tmp_path / "whole")["test"]["id"])
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rule": "even"}, "balance is 'even': use natural, domain, class, or a number above 0"),
        ({"rule": "temperature", "temperature": 0.0}, "use one above 0"),
        ({"cap": 0}, "use 1 or more"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(BalanceError, match=sentence):
        Balance(**arguments)


def test_a_number_is_read_as_a_temperature() -> None:
    assert Balance.read("0.5", cap=9) == Balance("temperature", 0.5, 9)
    assert Balance.read("class") == Balance("class")
    with pytest.raises(BalanceError, match="or a number above 0"):
        Balance.read("-1")
