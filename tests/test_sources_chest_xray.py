"""The chest X-ray sources on miniatures of their own folder trees."""

from pathlib import Path

import pytest
from layouts import chest_xray as layouts
from layouts.films import table
from miniatures import rows_of

from qoq_lib.data import readers
from qoq_lib.data.assemble import assemble_sources
from qoq_lib.data.sources.chest_xray import FINDINGS, SOURCES
from qoq_lib.data.sources.source import Record, Source, SourceError
from qoq_lib.data.storage import Assembly, AssemblyError

NAMED = {source.name: source for source in SOURCES}
needs_dicom = pytest.mark.skipif(
    not hasattr(readers, "read_images"), reason="no reader of DICOM films yet"
)


def records(name: str, data_root: Path) -> dict[str, Record]:
    """The records of a source by the last part of their id, without its ending."""
    found = [one for one in NAMED[name].records(data_root) if isinstance(one, Record)]
    return {Path(one.record_id).stem: one for one in found}


def assembled(source: Source, data_root: Path) -> tuple[Assembly, dict[str, dict]]:
    """The miniature, assembled without what is damaged; its rows by the last part of their id."""
    out = data_root / "out"
    assembly = assemble_sources([source], data_root, out, name="test", on_error="skip")
    return assembly, {Path(row["id"]).stem: row for row in rows_of(out)}


def test_mimic_cxr_keeps_its_split_patients_and_certain_findings(tmp_path: Path) -> None:
    assembly, rows = assembled(NAMED["mimic_cxr"], layouts.mimic_cxr(tmp_path))
    assert {name: row["answers"] for name, row in rows.items()} == {
        "d1": ["Edema"],
        "d2": ["Edema"],
        "d4": ["No Finding"],
        "d5": ["Edema", "Support Devices"],
    }
    assert [rows[name]["split"] for name in ("d1", "d4", "d5")] == ["train", "validation", "test"]
    assert rows["d1"]["patient_id"] == rows["d2"]["patient_id"] == "mimic/10000032"
    # d3 has an uncertain finding only, d8 a study without labels.
    assert assembly.unlabelled == {"mimic_cxr": 2}
    assert [refusal.record[-6:] for refusal in assembly.refused] == ["d7.jpg", "d6.jpg"]
    assert set(rows["d1"]["options"]) == set(FINDINGS) and rows["d1"]["report"] is None


def test_a_damaged_file_stops_the_assembly_unless_it_may_be_skipped(tmp_path: Path) -> None:
    layouts.mimic_cxr(tmp_path)
    with pytest.raises(AssemblyError, match=r"1 of 6 records .*d7\.jpg is listed but missing"):
        assemble_sources([NAMED["mimic_cxr"]], tmp_path, tmp_path / "out", name="test")
    assert not (tmp_path / "out").exists()


def test_chexpert_reads_findings_by_name_and_tests_on_the_radiologists(tmp_path: Path) -> None:
    assembly, _ = assembled(NAMED["chexpert"], layouts.chexpert(tmp_path))
    rows = {Path(row["id"]).parts[2:5]: row for row in rows_of(tmp_path / "out")}
    # CLIMB's positions take the first column for Atelectasis; here names decide.
    assert {key: row["answers"] for key, row in rows.items()} == {
        ("train", "patient00001", "study1"): ["No Finding"],
        ("train", "patient00001", "study2"): ["Atelectasis"],
        ("train", "patient00002", "study4"): ["Edema"],
        ("valid", "patient64541", "study1"): ["No Finding"],
        ("valid", "patient64541", "study2"): ["Atelectasis"],
    }
    assert all((row["split"] == "test") == (key[0] == "valid") for key, row in rows.items())
    first = rows["train", "patient00001", "study1"]
    assert first["patient_id"] == "chexpert/patient00001"
    assert (first["sex"], first["age_years"]) == ("M", 44)
    assert assembly.unlabelled == {"chexpert": 1}
    refused = [Path(refusal.record).parent.name for refusal in assembly.refused]
    assert refused == ["study6", "study5"]  # missing, then cut off


def test_a_mark_that_is_none_is_named(tmp_path: Path) -> None:
    root = layouts.chexpert(tmp_path) / "chest_xray/chexpert/CheXpert-v1.0"
    text = (root / "valid.csv").read_text()
    (root / "valid.csv").write_text(text.replace(",1.0,", ",yes,", 1))
    with pytest.raises(SourceError, match=r"frontal\.jpg: the column 'No Finding' holds 'yes'"):
        records("chexpert", tmp_path)


def test_vindr_cxr_joins_by_id_and_takes_the_readers_majority(tmp_path: Path) -> None:
    found = records("vindr_cxr", layouts.vindr_cxr(tmp_path))
    assert {name: one.answers for name, one in found.items()} == {
        "f1": ("pneumonia",),
        "e2": ("no finding",),
        "d3": (),  # three readers, three opinions
        "b4": ("tuberculosis", "other diseases"),
        "c5": ("no finding",),
        "a6": ("lung tumor",),
        "t2": ("other diseases",),
        "t1": ("no finding",),
    }
    assert all(one.images[0].stem == name for name, one in found.items())
    assert {name: one.split for name, one in found.items() if name[0] == "t"} == dict.fromkeys(
        ("t1", "t2"), "test"
    )


def test_vindr_cxr_boxes_are_those_that_two_of_three_readers_drew(tmp_path: Path) -> None:
    found = records("vindr_cxr", layouts.vindr_cxr(tmp_path))
    assert found["f1"].boxes == ((2.25, 3, 8, 9.25),)
    assert found["b4"].boxes == ((2, 1, 10, 10),)
    assert found["t2"].boxes == ((1, 1, 6, 7),)
    assert found["e2"].boxes == found["t1"].boxes == ()


@needs_dicom
def test_vindr_cxr_is_assembled_from_its_films(tmp_path: Path) -> None:
    assembly, rows = assembled(NAMED["vindr_cxr"], layouts.vindr_cxr(tmp_path))
    assert set(rows) == {"f1", "e2", "b4", "t1", "t2"}
    assert rows["f1"]["boxes"] == [[2.25, 3, 8, 9.25]]
    assert {refusal.record for refusal in assembly.refused} == {"train/c5.dicom", "train/a6.dicom"}


def test_covid19_leaves_copies_out_and_keeps_a_child_on_one_side(tmp_path: Path) -> None:
    assembly, rows = assembled(NAMED["covid19"], layouts.covid19(tmp_path))
    ids = [row["id"] for row in rows_of(tmp_path / "out")]
    assert len(ids) == 27 and all(part.split("/")[1] in ("TrainData", "ValData") for part in ids)
    assert not any("Oversampled" in name for name in ids) and not assembly.duplicates
    assert sum(row["split"] == "test" for row in rows_of(tmp_path / "out")) == 8
    child = rows["person1_virus_0"]
    assert child["patient_id"] == rows["person1_virus_1"]["patient_id"] == "covid19/person1_virus"
    assert child["split"] == rows["person1_virus_1"]["split"]
    assert [refusal.record for refusal in assembly.refused] == ["TrainData/Normal/0.jpg"]


def test_coronahack_reads_class_split_and_child_from_its_table(tmp_path: Path) -> None:
    assembly, rows = assembled(NAMED["coronahack"], layouts.coronahack(tmp_path))
    assert {name: row["answers"][0] for name, row in rows.items()} == {
        "IM-0128-0001": "normal",
        "IM-0128-0002": "normal",
        "person1_bacteria_1": "bacterial pneumonia",
        "person7_virus_9": "viral pneumonia",
        "person100_bacteria_475": "bacterial pneumonia",
        "NORMAL2-IM-0128-0001": "normal",
    }
    assert rows["IM-0128-0001"]["patient_id"] == rows["IM-0128-0002"]["patient_id"]
    assert (
        rows["NORMAL2-IM-0128-0001"]["split"] == rows["person100_bacteria_475"]["split"] == "test"
    )
    assert assembly.unlabelled == {"coronahack": 1}
    assert {Path(one.record).name for one in assembly.refused} == {
        "person8_virus_10.jpeg",
        "person9_virus_11.jpeg",
    }


def test_an_image_in_two_data_sets_is_on_one_side_in_both(tmp_path: Path) -> None:
    layouts.coronahack(layouts.covid19(tmp_path))
    root = tmp_path / "chest_xray"
    tested = next((root / "coronahack").rglob("person100_bacteria_475.jpeg"))
    trained = root / "covid19" / "TrainData" / "Normal" / "3.jpg"
    trained.write_bytes(tested.read_bytes())
    both = [NAMED["covid19"], NAMED["coronahack"]]
    assembly = assemble_sources(both, tmp_path, tmp_path / "out", name="test", on_error="skip")
    assert [one.ids[0] for one in assembly.duplicates] == ["covid19/TrainData/Normal/3.jpg"]
    split_of = {row["id"]: row["split"] for row in rows_of(tmp_path / "out")}
    assert {split_of[name] for name in assembly.duplicates[0].ids} == {"test"}


def test_a_join_with_two_lines_for_one_key_is_refused(tmp_path: Path) -> None:
    root = layouts.mimic_cxr(tmp_path) / "chest_xray" / "mimic_cxr"
    columns = "subject_id,study_id," + ",".join(layouts.ALPHABETICAL)
    line = "10000032,501" + "," * len(layouts.ALPHABETICAL)
    table(root / "mimic-cxr-2.0.0-chexpert.csv.gz", columns, line, f"{line}1.0")
    with pytest.raises(SourceError, match=r"csv\.gz has 2 lines of '501' where mimic_cxr"):
        records("mimic_cxr", tmp_path)
