"""How each data set is had: the registry against the cards, the table for people, the lock."""

from pathlib import Path

import pytest

from qoq_lib.data.cards.card import load_cards
from qoq_lib.data.fetch import FetchError, access_table, fetch, registry
from qoq_lib.data.fetch.ledger import Ledger, Received
from qoq_lib.data.fetch.origins import ByHand, Files, Kaggle, PhysioNet
from qoq_lib.data.fetch.remote import shown
from qoq_lib.data.sources import multimodal
from qoq_lib.data.sources.source import Source


def test_a_source_that_nobody_declared_is_refused(tmp_path: Path) -> None:
    own = Source("my_own", "ct", "none", ("a", "b"), ())
    with pytest.raises(FetchError, match="No data card speaks for 'my_own'"):
        fetch([own], tmp_path)
    phantom = Source("phantom_ct", "ct", "none", ("a", "b"), ())
    with pytest.raises(FetchError, match="Nothing is declared about where phantom_ct comes from"):
        fetch([phantom], tmp_path)


def test_the_access_table_says_what_is_needed_and_where_to_put_it(tmp_path: Path) -> None:
    names = ("mimic_cxr", "chexpert", "covid19", "messidor2", "ptb_xl", "rspect")
    sources = [Source(name, "ct", "none", ("a", "b"), (), folder=f"x/{name}") for name in names]
    table = access_table(sources, tmp_path).set_index("data set")
    needs = table["what is needed"]
    assert "CITI training" in needs["mimic_cxr"] and "~/.netrc" in needs["mimic_cxr"]
    assert "research use agreement" in needs["chexpert"] and needs["ptb_xl"] == "nothing"
    assert "free Kaggle account" in needs["covid19"] and "rules accepted" in needs["rspect"]
    assert "request the images at https://www.adcis.net" in needs["messidor2"]
    assert table["terms"].str.startswith("https://").all()
    assert table.loc["chexpert", "folder"] == "x/chexpert"
    assert set(table["files there"]) == {"no"}


def test_every_card_has_an_origin_that_fits_its_access() -> None:
    cards = load_cards()
    parts = {part for source in multimodal.SOURCES for part in source.parts}
    assert set(registry.ORIGINS) == set(cards) - {"phantom"} | parts
    for name in set(cards) - {"phantom"}:
        ways, access = registry.ORIGINS[name], cards[name].access
        classes = {way.access for way in ways if isinstance(way, PhysioNet)}
        if "PhysioNet" in cards[name].license:
            assert classes == {"credentialed" if access == "credentialed" else "restricted"}
        else:
            assert classes <= {"open"}
        rules = any(isinstance(way, Kaggle) and way.competition for way in ways)
        asked = any(isinstance(way, ByHand) and "re" in way.needs[:3] for way in ways)
        assert (rules or asked or classes == {"restricted"}) == (
            access in ("registered", "request")
        )


def test_every_fixed_address_is_encrypted_and_lies_inside_its_folder() -> None:
    fixed = [
        file
        for ways in registry.ORIGINS.values()
        for way in ways
        if isinstance(way, Files)
        for file in way.listed
    ]
    assert len(fixed) == len({file.url for file in fixed}) > 10
    for file in fixed:
        assert file.url.startswith("https://") and shown(file.url) == file.url
        assert not Path(file.path).is_absolute() and ".." not in Path(file.path).parts
        assert file.path.endswith(".zip") == (file.unpack is not None)


def test_a_line_that_was_cut_while_writing_is_forgotten_and_a_damaged_lock_named(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "lock.jsonl"
    ledger = Ledger(lock, tmp_path)
    ledger.add(Received(name, 1, "0", "o", "nothing") for name in ("a", "b"))
    lock.write_text(lock.read_text()[:-9])
    (tmp_path / "a").write_bytes(b"1")
    again = Ledger(lock, tmp_path)
    assert again.holds("a") and again.get("b") is None
    again.add([Received("b", 1, "0", "o", "nothing")])
    assert Ledger(lock, tmp_path).get("b") is not None
    lock.write_text("{}\n")
    with pytest.raises(FetchError, match=r"The lock .*lock\.jsonl is damaged"):
        Ledger(lock, tmp_path)
