"""Every data set of the paper has a card, and no card gives away more than its terms allow."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from qoq_lib.data.cards import HEADINGS, SHARED, Card, CardError, load_card, load_cards
from qoq_lib.data.cards.policy import license_class
from qoq_lib.data.cards.table import render
from qoq_lib.data.phantom import make_phantom
from qoq_lib.runs import project_root

CARDS = project_root() / "data_cards"
OF_THE_PAPER = {
    "chest_xray": {"mimic_cxr", "chexpert", "vindr_cxr", "covid19", "coronahack"},
    "mammography": {"vindr_mammo", "cbis_ddsm", "cmmd"},
    "dermoscopy": {"isic2020", "ham10000", "pad_ufes_20"},
    "ct": {"lndb", "inspect", "kits23", "hemorrhage", "rspect"},
    "fundus": {"aptos2019", "messidor2", "jichi"},
    "ultrasound": {"busi", "covid_blues", "covid_us", "echonet_dynamic"},
    "mri": {"brain_tumor", "brain_tumor_2"},
    "pathology": {"lc25000", "bcss"},
    "ecg": {"ptb_xl", "chapman_shaoxing", "georgia", "cpsc2018"},
    "multimodal": {"mimic_iv", "phantom"},
}
# Written out again, so that a slip in the rule itself is seen, too.
WITHHELD = {"mimic_cxr", "mimic_iv", "vindr_cxr", "vindr_mammo"}
NO_TRACES = WITHHELD | {"chexpert", "inspect", "echonet_dynamic", "messidor2", "covid_blues"}
OPEN = {
    "cbis_ddsm", "cmmd", "pad_ufes_20", "jichi", "lndb", "bcss", "ptb_xl", "cpsc2018", "phantom",
}  # fmt: skip


@pytest.fixture(scope="module")
def cards() -> dict[str, Card]:
    return load_cards()


def test_the_32_sources_and_the_phantom_have_a_card(cards: dict[str, Card]) -> None:
    by_domain: dict[str, set[str]] = {}
    for card in cards.values():
        by_domain.setdefault(card.domain, set()).add(card.name)
    assert by_domain == OF_THE_PAPER
    assert len(cards) == 32 + 1


def test_a_card_has_the_headings_in_order_and_says_what_is_not_reported() -> None:
    for path in CARDS.glob("*.md"):
        if path.name != "README.md":
            body = path.read_text(encoding="utf-8")
            assert tuple(re.findall(r"^## (.+)$", body, re.MULTILINE)) == HEADINGS, path.name
            for subgroup in ("Age", "Sex", "Ethnicity"):
                assert re.search(rf"^- {subgroup}: \S", body, re.MULTILINE), path.name


def test_a_card_says_what_is_done_with_the_data_here(cards: dict[str, Card]) -> None:
    for name in set(cards) - {"phantom"}:
        assert "Here: " in cards[name].sections["Preprocessing"], name


def test_the_release_of_every_card_is_the_one_expected(cards: dict[str, Card]) -> None:
    for name, card in cards.items():
        shared = {what: getattr(card.release, what) for what in SHARED}
        assert (set(shared.values()) == {"none"}) == (name in WITHHELD), name
        assert (shared["traces"] == "none") == (name in NO_TRACES), name
        assert (set(shared.values()) == {"open"}) == (name in OPEN), name
        assert ("open" in shared.values()) == (name in OPEN), name


def test_open_needs_open_access_and_a_licence_of_the_owner_that_allows_it(
    cards: dict[str, Card],
) -> None:
    for card in cards.values():
        if "open" in (card.release.weights, card.release.traces, card.release.images):
            assert (card.access, card.license_by) == ("open", "owner"), card.name
            assert license_class(card.license) == "permissive", card.name
        if card.access == "credentialed":
            assert card.release.weights == card.release.traces == card.release.images == "none"
        if card.license == "not stated":
            assert card.release.images == "none" and card.release.traces != "open", card.name
        assert card.terms or card.license == "not stated", card.name


def test_rows_are_those_listed_and_the_known_contradictions_stay_null(
    cards: dict[str, Card],
) -> None:
    assert cards["rspect"].rows.total == 1_790_594
    assert (cards["chexpert"].rows.total, cards["chexpert"].rows.train) == (212_498, None)
    assert cards["echonet_dynamic"].rows.total is None


def test_rows_of_the_phantom_find_its_card() -> None:
    names = set(make_phantom(180, seed=0)["dataset"])
    assert len(names) == 9
    assert {load_card(name).name for name in names} == {"phantom"}


def test_what_has_no_card_is_named_with_the_known_ones() -> None:
    with pytest.raises(CardError, match="No data card speaks for 'mini_mias'.*write.*chexpert"):
        load_card("mini_mias")
    with pytest.raises(CardError, match="No data card speaks for '../README'"):
        load_card("../README")


def test_the_readme_is_up_to_date(cards: dict[str, Card]) -> None:
    text = (CARDS / "README.md").read_text(encoding="utf-8")
    assert render(text, cards) == text, "run 'make cards'"
    assert all(f"({name}.md)" in text for name in cards)


def test_a_readme_without_its_markers_is_refused(cards: dict[str, Card]) -> None:
    with pytest.raises(CardError, match=r"README.md: the markers <!-- rule -->.*found 0 times"):
        render("# Data cards\n", cards)


def changed(tmp_path: Path, name: str, old: str, new: str) -> Path:
    """A folder with one card of the project, in which ``old`` reads ``new``."""
    text = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    (tmp_path / f"{name}.md").write_text(text.replace(old, new), encoding="utf-8")
    return tmp_path


WRONG = {
    "unknown field": ("ptb_xl", "license_by:", "licensed_by:", "licensed_by is not a field"),
    "one field too many": ("ptb_xl", "domain: ecg", "domain: ecg\nmood: good", "mood is not a"),
    "sections in front": ("ptb_xl", "domain: ecg", "domain: ecg\nsections: {}", "sections is not"),
    "twice": ("ptb_xl", "  traces: open", "  traces: none\n  traces: open", "stands there twice"),
    "missing": ("ptb_xl", "doi: ", "# doi: ", "doi is missing: state it, or write null"),
    "domain": ("ptb_xl", "domain: ecg", "domain: eeg", "domain is 'eeg': use one of chest_xray"),
    "share": ("ptb_xl", "images: open", "images: maybe", "release.images is 'maybe'"),
    "text for a number": ("ptb_xl", "patients: 18869", "patients: many", "patients is 'many'"),
    "link": ("ptb_xl", '"https://physionet', '"http://physionet', "homepage is 'http://"),
    "sum": ("ptb_xl", "train: 17476", "train: 17477", "rows: train and test do not add up"),
    "date": ("ptb_xl", "reviewed: 2026-11-22", "reviewed: lately", "reviewed is 'lately'"),
    "name": ("ptb_xl", "name: ptb_xl", "name: ptbxl", "name is 'ptbxl', but must be"),
    "no terms": ("ptb_xl", "\nterms: ", "\nterms: null #", "terms is null"),
    "nobody": ("ptb_xl", "license_by: owner", "license_by: nobody", "license_by must be 'nobody'"),
    "yaml": ("ptb_xl", "domain: ecg", "domain: [ecg", "not valid YAML"),
    "no front matter": ("ptb_xl", "---\nname", "name", "the front matter between"),
    "heading": ("ptb_xl", "## Known biases", "## Biases", "'## Known biases' is missing"),
    "last heading": ("ptb_xl", "## Maintenance", "### Maintenance", "'## Maintenance' is missing"),
    "more": ("ptb_xl", "## Maintenance", "## Maintenance\n\nx\n\n## More", "'## More' is missing,"),
    "subgroup": ("ptb_xl", "- Ethnicity: ", "- Tribe: ", "no line '- Ethnicity: ...'"),
    "opened": ("mimic_cxr", "  traces: none", "  traces: open", "'credentialed' allows at most"),
    "gated": ("mimic_cxr", "  traces: none", "  traces: gated", "'credentialed' allows at most"),
    "agreement": ("chexpert", "  traces: none", "  traces: gated", "Agreement' (agreement) allows"),
    "commercial": ("kits23", "  images: gated", "  images: open", "(conditional) allows"),
    "derivatives": ("covid_blues", "  traces: none", "  traces: gated", "(no derivatives) allows"),
    "unlicensed": ("lc25000", "  images: none", "  images: gated", "'not stated' (other) allows"),
    "mirror": ("busi", "  images: none", "  images: open", "stated by 'mirror' allows at most"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_card_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    name, old, new, message = WRONG[case]
    with pytest.raises(CardError) as refused:
        load_cards(changed(tmp_path, name, old, new))
    said = str(refused.value)
    assert said.startswith(f"{name}.md: ") and said.endswith(".") and "\n" not in said
    assert message in said


def test_a_release_without_a_reason_is_refused(tmp_path: Path) -> None:
    text = (CARDS / "ptb_xl.md").read_text(encoding="utf-8")
    text = re.sub(r"  reason: >-\n(    .*\n)+", "  reason: Ours.\n", text)
    (tmp_path / "ptb_xl.md").write_text(text, encoding="utf-8")
    with pytest.raises(CardError, match=r"ptb_xl.md: release.reason is 'Ours.': .*at least 30"):
        load_cards(tmp_path)


def test_an_empty_section_is_refused(tmp_path: Path) -> None:
    folder = changed(tmp_path, "cmmd", "## Motivation\n\nNot stated.", "## Motivation")
    with pytest.raises(CardError, match=r"cmmd.md: the section '## Motivation' is empty"):
        load_cards(folder)


def test_a_stricter_card_is_accepted(tmp_path: Path) -> None:
    folder = changed(tmp_path, "ptb_xl", "  images: open", "  images: none")
    assert load_card("ptb_xl", folder).release.images == "none"


def test_two_cards_cannot_speak_for_one_data_set(tmp_path: Path) -> None:
    changed(tmp_path, "ptb_xl", "domain: ecg", "domain: ecg\ncovers: [georgia]")
    (tmp_path / "georgia.md").write_text((CARDS / "georgia.md").read_text(encoding="utf-8"))
    with pytest.raises(CardError, match=r"covers names 'georgia', which georgia.md covers|ptb_xl"):
        load_cards(tmp_path)


def test_a_folder_without_cards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="holds no data cards"):
        load_cards(tmp_path)


def test_the_cards_are_valid_croissant(cards: dict[str, Card], tmp_path: Path) -> None:
    mlc: Any = pytest.importorskip("mlcroissant", reason="mlcroissant is in the extra 'cards'")
    from qoq_lib.data.cards.croissant import export

    written = export(cards.values(), tmp_path / "croissant")
    assert {path.stem for path in written} == set(cards)
    for path in written:
        document = json.loads(path.read_text(encoding="utf-8"))
        card = cards[path.stem]
        assert mlc.Dataset(path).metadata.issues.errors == set()
        assert document["name"] == card.name
        assert document["rai:dataBiases"] == card.sections["Known biases"]
        assert card.license in document["license"]


def test_without_mlcroissant_the_export_says_what_to_install(
    cards: dict[str, Card], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qoq_lib.data.cards.croissant import export

    monkeypatch.setitem(sys.modules, "mlcroissant", None)
    with pytest.raises(CardError, match=r"pip install -e '.\[cards\]'"):
        export(cards.values(), tmp_path / "croissant")
    assert not (tmp_path / "croissant").exists()
