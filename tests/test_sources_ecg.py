"""The ECG sets in their own layouts: labels, folds by patient, any length, damaged records."""

from pathlib import Path

import numpy as np
import pytest
from layouts import ecg as layout
from miniatures import rows_of

from qoq_lib.data.assemble import Assembly, assemble_sources
from qoq_lib.data.example import check_rows
from qoq_lib.data.sources.ecg import SOURCES, scp_labels
from qoq_lib.data.sources.source import Source, SourceError
from qoq_lib.data.storage import AssemblyError

PTB_XL, CHAPMAN, GEORGIA, CPSC = SOURCES
FIRST_RECORD = {"chapman_shaoxing": "JS00001", "georgia": "E00001", "cpsc2018": "A0001"}


@pytest.fixture(scope="module")
def ptb_xl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Assembly, dict[str, dict]]:
    """PTB-XL, assembled once."""
    folder = tmp_path_factory.mktemp("ptb_xl")
    assembly = assemble_sources(
        [PTB_XL], layout.ptb_xl(folder), folder / "out", name="test", on_error="skip"
    )
    return assembly, {row["id"].removeprefix("ptb_xl/"): row for row in rows_of(folder / "out")}


def test_ptb_xl_labels_are_those_stated_and_normal_stands_alone(
    ptb_xl: tuple[Assembly, dict[str, dict]],
) -> None:
    assembly, rows = ptb_xl
    check_rows(rows.values())
    answers = {name: row["answers"] for name, row in rows.items()}
    assert answers["3"] == ["normal"]
    assert answers["1"] == ["other"]  # normal, but of low voltage
    # Faults of the paper's table: slow and fast rhythms under normal, INVT under infarction.
    assert answers["2"] == answers["6"] == ["other"]
    assert answers["5"] == ["ST-T change"]
    # None of several is picked at random.
    assert answers["7"] == [
        "conduction disturbance",
        "myocardial infarction",
        "atrial fibrillation or flutter",
    ]
    assert "4" not in rows and assembly.unlabelled == {"ptb_xl": 1}


def test_ptb_xl_is_split_by_patient_along_its_folds(
    ptb_xl: tuple[Assembly, dict[str, dict]],
) -> None:
    _, rows = ptb_xl
    assert {name for name, row in rows.items() if row["split"] == "test"} == {"8", "9", "10", "13"}
    assert {name for name, row in rows.items() if row["split"] == "validation"} == {"11", "12"}
    # Number 10 lies in a fold for training and has a patient of the test fold.
    assert rows["10"]["patient_id"] == rows["8"]["patient_id"] == "ptb_xl/11275.0"


def test_ptb_xl_signals_and_demographics(ptb_xl: tuple[Assembly, dict[str, dict]]) -> None:
    _, rows = ptb_xl
    np.testing.assert_allclose(rows["3"]["ecg"], layout.heartbeat(3), atol=1e-6)
    assert rows["3"]["ecg_leads"] == layout.LEADS and rows["3"]["ecg_rate_hz"] == 500
    assert (rows["3"]["sex"], rows["3"]["age_years"]) == ("F", 37.0)
    assert (rows["2"]["sex"], rows["2"]["age_years"]) == ("M", 19.0)
    assert rows["5"]["age_years"] is None  # 300 stands for "over 89"
    assert all(row["report"] is None for row in rows.values())  # the report names the labels


def test_ptb_xl_missing_and_cut_signals_stop_or_are_skipped_by_name(
    tmp_path: Path, ptb_xl: tuple[Assembly, dict[str, dict]]
) -> None:
    assert [one.record for one in ptb_xl[0].refused] == ["14", "15"]
    assert all("0001" in one.reason for one in ptb_xl[0].refused)
    with pytest.raises(AssemblyError, match="refused, more than 1 %"):
        assemble_sources([PTB_XL], layout.ptb_xl(tmp_path), tmp_path / "out", name="test")


@pytest.mark.parametrize("codes", ["{'NOSUCH': 100.0}", "NORM", "{'NORM'", "3"])
def test_statements_that_ptb_xl_does_not_define_are_an_error(codes: str) -> None:
    with pytest.raises(SourceError, match="ECG 7: .* not statements of PTB-XL"):
        scp_labels({"ecg_id": "7", "scp_codes": codes})


def test_every_one_of_the_71_statements_has_one_label() -> None:
    labels = {
        code: scp_labels({"ecg_id": "7", "scp_codes": f"{{{code!r}: 100.0}}"})
        for code in layout.STATEMENTS
    }
    assert len(labels) == 71
    assert labels.pop("SR") == ()  # a rhythm that is well says nothing of the rest
    assert all(len(found) == 1 for found in labels.values())
    assert {found[0] for found in labels.values()} == set(PTB_XL.options)


@pytest.mark.parametrize("source", [CHAPMAN, GEORGIA, CPSC], ids=lambda one: one.name)
def test_the_challenge_sets(tmp_path: Path, source: Source) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    layout.challenge(root, source.name, FIRST_RECORD[source.name])
    assembly = assemble_sources([source], root, out, name="test", on_error="skip")
    rows = {row["id"].rpartition("/")[2]: row for row in rows_of(out)}
    check_rows(rows.values())
    name = FIRST_RECORD[source.name][:-1]
    assert rows[f"{name}1"]["answers"] == ["normal"]
    assert rows[f"{name}2"]["answers"] == rows[f"{name}3"]["answers"] == ["other"]
    assert rows[f"{name}4"]["answers"] == [
        "atrial fibrillation or flutter",
        "conduction disturbance",
    ]
    assert rows[f"{name}5"]["answers"] == ["myocardial infarction", "ST-T change"]
    assert (rows[f"{name}6"]["answers"], rows[f"{name}8"]["answers"]) == (
        ["hypertrophy"],
        ["other"],
    )
    assert (rows[f"{name}1"]["sex"], rows[f"{name}1"]["age_years"]) == ("M", 60.0)
    assert (rows[f"{name}6"]["sex"], rows[f"{name}5"]["age_years"]) == (None, None)
    lengths = {len(row["ecg"][0]) for row in rows.values()}
    assert lengths == {700, 1000, 1600}  # longer and shorter records are kept
    reasons = {one.record.rpartition("/")[2][-2:]: one.reason for one in assembly.refused}
    assert set(reasons) == {"09", "10", "11"} and len(rows) == len(layout.CHALLENGE) - 3
    assert "header" in reasons["11"] and "is missing" in reasons["11"]
