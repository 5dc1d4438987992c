"""What may leave the machine, by the data cards."""

from pathlib import Path

import pandas as pd
import pytest

from qoq_lib.data.cards import load_cards
from qoq_lib.publishing.policy import (
    PolicyError,
    datasets_in,
    gate_text,
    judge,
    policy_table,
    require,
)


def test_the_card_decides_for_every_data_set_and_thing() -> None:
    cards = {name: card for card in load_cards().values() for name in card.datasets}
    for what in ("weights", "traces", "images"):
        for gated in (False, True):
            for one in judge(cards, what, gated=gated):  # type: ignore[arg-type]
                share = getattr(cards[one.dataset].release, what)
                assert one.share == share
                assert one.allowed == (share == "open" or share == "gated" and gated)
                assert one.reason == cards[one.dataset].release.reason


def test_credentialed_data_never_leave_whatever_the_repository() -> None:
    for what in ("weights", "traces", "images"):
        verdicts = judge(["mimic_cxr", "phantom_ct"], what, gated=True)  # type: ignore[arg-type]
        with pytest.raises(PolicyError, match=f"^{what.capitalize()} of mimic_cxr may not leave"):
            require(verdicts)
        assert [one.allowed for one in verdicts] == [False, True]


def test_without_a_card_nothing_leaves() -> None:
    (verdict,) = judge(["our_hospital"], "traces", gated=True)
    assert (
        not verdict.allowed
        and verdict.share == "none"
        and "data_cards/our_hospital.md" in (verdict.reason)
    )
    with pytest.raises(PolicyError, match="our_hospital") as told:
        require([verdict])
    assert told.value.verdicts == (verdict,) and "\n" not in str(told.value)


def test_a_gate_opens_what_is_gated_and_holds_its_terms() -> None:
    names = ["kits23", "ptb_xl"]
    with pytest.raises(PolicyError, match="kits23 may go to a gated repository only"):
        require(judge(names, "traces", gated=False))
    verdicts = judge(names, "traces", gated=True)
    require(verdicts)
    text = gate_text(verdicts)
    assert "kits23: CC-BY-NC-SA-4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/)" in text
    assert "ptb_xl" not in text
    assert gate_text(judge(["ptb_xl"], "traces", gated=False)) == ""
    # Who asks for a gate gets one, also where no source does.
    assert "identify anybody" in gate_text(judge(["ptb_xl"], "traces", gated=True))


def test_the_table_of_reasons_has_a_row_per_data_set() -> None:
    table = policy_table(judge(["mimic_cxr", "ptb_xl"], "images", gated=False))
    assert list(table["in this release"]) == ["no", "yes"]
    assert list(table["share"]) == ["none", "open"] and table["reason"].str.len().min() > 30


def test_the_data_sets_of_a_folder_are_counted_from_its_rows(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pd.DataFrame({"dataset": ["a", "a", "b"]}).to_parquet(tmp_path / "data" / "x.parquet")
    pd.DataFrame({"dataset": ["b"]}).to_parquet(tmp_path / "y.parquet")
    pd.DataFrame({"step": [1]}).to_parquet(tmp_path / "log.parquet")
    assert datasets_in(tmp_path) == {"a": 2, "b": 2}
