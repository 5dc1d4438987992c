"""MIMIC-IV: what belongs to the first 48 hours of a stay, and who is on which side of the split."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import multimodal as layout
from layouts.ecg import heartbeat
from layouts.films import table
from miniatures import one_side_each, rows_of

from qoq_lib.data.assemble import Assembly, assemble_sources
from qoq_lib.data.cards import load_card
from qoq_lib.data.example import check_rows
from qoq_lib.data.sources.chest_xray import FINDINGS
from qoq_lib.data.sources.chest_xray import SOURCES as CHEST_XRAYS
from qoq_lib.data.sources.multimodal import SOURCES
from qoq_lib.data.sources.source import Record, Source, SourceError
from qoq_lib.data.storage import AssemblyError

LENGTH, ENDING = SOURCES
MIMIC_CXR = CHEST_XRAYS[0]
NO_WINDOW = {"20000025", "20000026", "20000027", "20000030"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three data bases."""
    return layout.mimic_iv(tmp_path_factory.mktemp("mimic"))


@pytest.fixture(scope="module")
def assembled(root: Path) -> tuple[Assembly, list[dict]]:
    """Both tasks, assembled once."""
    assembly = assemble_sources(SOURCES, root, root / "out", name="test", on_error="skip")
    return assembly, rows_of(root / "out")


@pytest.fixture(scope="module")
def stays(assembled: tuple[Assembly, list[dict]]) -> dict[str, dict]:
    """Rows of the question about early endings, by admission."""
    return {
        row["id"].rpartition("/")[2]: row
        for row in assembled[1]
        if row["dataset"] == "mimic_iv_mortality"
    }


def listed(source: Source, root: Path) -> dict[str, Record]:
    return {one.record_id: one for one in source.records(root) if isinstance(one, Record)}


def test_length_of_stay_counts_completed_days(root: Path) -> None:
    answers = {name: record.answers for name, record in listed(LENGTH, root).items()}
    bins = [answers[str(20000000 + number)][0] for number in range(16)]
    assert bins == [option for option in LENGTH.options for _ in range(4)]
    assert answers["20000024"] == ()  # discharged before it began: no answer, and not a guess


def test_an_early_ending_is_death_or_hospice_within_48_hours(stays: dict[str, dict]) -> None:
    early = {name for name, row in stays.items() if row["answers"] == ["death or hospice"]}
    assert early == {"20000020", "20000021"}  # not the hospice of day 6, nor the death of hour 60
    assert stays["20000022"]["answers"] == stays["20000023"]["answers"] == ["neither"]


def test_a_stay_joins_text_ecg_and_film_of_its_window(stays: dict[str, dict]) -> None:
    row = stays["20000004"]
    assert row["report"] == (
        "ECG machine: Sinus rhythm 0; Borderline ECG. "
        "Laboratory: Lactate 2; Creatinine 1.1 to 1.4 mg/dL. "
        "Vital signs: Heart Rate 90 to 70 bpm."
    )
    np.testing.assert_allclose(row["ecg"], heartbeat(7004), atol=1e-6)
    assert len(row["images"]) == 1 and row["domain"] == "multimodal"
    assert (row["sex"], row["age_years"]) == ("M", 52.0)
    assert "first 48 hours" in row["question"] and sorted(row["options"]) == sorted(ENDING.options)


def test_nothing_is_of_another_time(root: Path, stays: dict[str, dict]) -> None:
    records = listed(ENDING, root)
    assert not NO_WINDOW & set(records) and set(records) >= set(stays)
    for record in records.values():
        (film,) = record.images
        assert record.ecg is not None and film.stem.endswith("0-pa")
        assert record.ecg.stem.endswith("0")
        assert "8.8" not in (record.report or "") and "9.9" not in (record.report or "")


def test_a_film_of_the_emergency_department_belongs_to_the_stay(root: Path) -> None:
    assert "20000000" in listed(ENDING, root)  # an hour before admission, two after arrival
    assert "20000030" not in listed(ENDING, root)


def test_a_patient_is_on_one_side_in_every_source_of_the_cohort(
    root: Path, assembled: tuple[Assembly, list[dict]]
) -> None:
    assembly, rows = assembled
    check_rows(rows)
    split_of: dict[str, set[str]] = {}
    for row in rows:
        split_of.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in split_of.values())
    twice = [row for row in rows if row["patient_id"] == "mimic/10000003"]
    assert len(twice) == 2 * 2 and len({row["report"] for row in twice}) == 1
    assert assembly.duplicates == []  # two questions about one film are no copies


def test_a_patient_of_the_test_films_is_in_the_test_stays(root: Path, tmp_path: Path) -> None:
    """MIMIC-CXR itself, whose official test part holds one film of a patient with two stays."""
    folder = root / "chest_xray" / "mimic_cxr"
    films = {path: path.parts[-3][1:] for path in sorted(folder.rglob("*-pa.jpg"))}
    parts = {patient: "test" if patient == "10000003" else "train" for patient in films.values()}
    studies = {path: path.parent.name[1:] for path in films}
    listed = [f"{file.stem},{studies[file]},{who},{parts[who]}" for file, who in films.items()]
    table(folder / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id,study_id,subject_id,split", *listed)
    labels = ["1.0" + "," * (len(FINDINGS) - 1), "," * (len(FINDINGS) - 2) + "1.0,"]
    lines = [f"{study},{labels[n % 2]}" for n, study in enumerate(studies.values())]
    columns = f"study_id,{','.join(FINDINGS)}"
    table(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", columns, *lines)
    sources = [MIMIC_CXR, LENGTH]
    assembly = assemble_sources(sources, root, tmp_path / "out", name="test", on_error="skip")
    rows = rows_of(tmp_path / "out")
    of_patient = [row for row in rows if row["patient_id"] == "mimic/10000003"]
    assert {row["dataset"] for row in of_patient} == {source.name for source in sources}
    assert len(of_patient) == 4 and {row["split"] for row in of_patient} == {"test"}
    assert one_side_each(rows)
    assert assembly.duplicates == []  # a film alone and in a stay is no copy


def test_each_data_base_may_lie_on_another_disk_but_no_file_of_it(
    root: Path, tmp_path: Path
) -> None:
    data_root = tmp_path / "data"
    for part in LENGTH.parts.values():
        (data_root / part).parent.mkdir(parents=True)
        (data_root / part).symlink_to(root / part)
    assert set(listed(LENGTH, data_root)) == set(listed(LENGTH, root))
    films = data_root / "chest_xray" / "mimic_cxr"
    films.unlink()
    shutil.copytree(root / "chest_xray" / "mimic_cxr", films)
    film = next(films.rglob("*-pa.jpg"))
    film.rename(tmp_path / "elsewhere.jpg")
    film.symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(SourceError, match="is a link out of its folder"):
        listed(LENGTH, data_root)


def test_missing_and_damaged_files_are_refused_by_name(
    root: Path, tmp_path: Path, assembled: tuple[Assembly, list[dict]]
) -> None:
    assembly, _ = assembled
    refused = {one.record: one.reason for one in assembly.refused}
    assert set(refused) == {"20000028", "20000029"} and len(assembly.refused) == 2 * 2
    assert "-pa.jpg is listed but missing" in refused["20000028"]
    assert ".hea cannot be read" in refused["20000029"]
    with pytest.raises(AssemblyError, match="refused, more than 1 %"):
        assemble_sources(SOURCES, root, tmp_path / "out", name="test")


def test_a_missing_damaged_or_other_table_is_one_sentence(root: Path, tmp_path: Path) -> None:
    tables = shutil.ignore_patterns("files", "out")
    root = shutil.copytree(root, tmp_path / "copy", ignore=tables)
    table = root / "multimodal" / "mimic_iv" / "hosp" / "labevents.csv.gz"
    whole = table.read_bytes()
    for content, expected in (
        (None, "labevents.csv.gz is missing"),
        (whole[: len(whole) // 2], "labevents.csv.gz cannot be read"),
        (b"", "labevents.csv.gz cannot be read"),
    ):
        table.unlink() if content is None else table.write_bytes(content)
        with pytest.raises(SourceError, match=expected):
            list(LENGTH.records(root))
    table.write_bytes(gzip.compress(b"subject_id,itemid\n1,2\n"))
    with pytest.raises(SourceError, match=r"labevents.csv.gz cannot be read .*storetime"):
        list(LENGTH.records(root))


def test_the_card_speaks_for_both_tasks() -> None:
    assert {load_card(source.name).name for source in SOURCES} == {"mimic_iv"}
