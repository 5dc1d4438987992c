"""The CT data sets, each from a miniature of its own layout."""

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import ct
from layouts.films import table
from miniatures import assembled, one_side_each

from qoq_lib.data import readers
from qoq_lib.data.example import check_rows
from qoq_lib.data.sources.ct import SOURCES
from qoq_lib.data.sources.source import Record, SourceError, Unreadable

SOURCE = {source.name: source for source in SOURCES}
LIBRARIES = ("nibabel", "SimpleITK")
needs_volumes = pytest.mark.skipif(
    not hasattr(readers, "read_images") or not all(map(importlib.util.find_spec, LIBRARIES)),
    reason="the readers of volumes are not installed",
)


def listed(name: str, data_root: Path) -> dict[str, Record | Unreadable]:
    """The records of a source by their id."""
    records = list(SOURCE[name].records(data_root))
    assert len({record.record_id for record in records}) == len(records)
    return {record.record_id: record for record in records}


def usable(records: dict[str, Record | Unreadable]) -> dict[str, Record]:
    """Those with a label."""
    return {
        name: record
        for name, record in records.items()
        if isinstance(record, Record) and record.answers
    }


@pytest.mark.parametrize(
    ("name", "layout", "count"),
    [
        pytest.param("lndb", ct.lndb, 13, marks=needs_volumes),
        pytest.param("inspect", ct.inspect, 13, marks=needs_volumes),
        pytest.param("kits23", ct.kits23, 9, marks=needs_volumes),
        ("hemorrhage", ct.hemorrhage, 38),
        ("rspect", ct.rspect, 26),
    ],
)
def test_rows_are_whole_and_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, layout: Callable[[Path], list[str]], count: int
) -> None:
    source = SOURCE[name]
    refused = layout(tmp_path / source.folder)
    assembly, rows = assembled(source, tmp_path, tmp_path / "out")
    check_rows(rows.values())
    assert len(rows) == count and one_side_each(rows.values())
    assert set(assembly.labels[name]) == set(source.options)
    for one in assembly.refused:  # of RSPECT a study is named, of the others the record
        assert any(one.record.startswith(start) for start in refused)
    assert len({one.record.split("/e")[0] for one in assembly.refused}) == len(refused)
    assert all(Path(one.record).stem in one.reason for one in assembly.refused)


def test_slices_with_bleeding_have_its_mask_and_both_windows(tmp_path: Path) -> None:
    ct.hemorrhage(tmp_path / "ct/hemorrhage")
    _, rows = assembled(SOURCE["hemorrhage"], tmp_path, tmp_path / "out")
    bleeding = rows["Patients_CT/050/brain/3.jpg"]
    assert bleeding["answers"] == ["hemorrhage"] and len(bleeding["images"]) == 2
    assert bleeding["boxes"] == [[8, 8, 16, 16]] and bleeding["mask"].size == (20, 24)
    clear = rows["Patients_CT/050/brain/4.jpg"]
    assert clear["answers"] == ["no hemorrhage"]
    assert clear["mask"] is None and clear["boxes"] is None
    brain, bone = (np.asarray(image, dtype=int) for image in clear["images"])
    assert np.abs(brain - bone).mean() > 5


def test_a_window_of_lndb_has_a_nodule_where_its_middle_is_in_it(tmp_path: Path) -> None:
    ct.lndb(tmp_path / "ct/lndb")
    records = listed("lndb", tmp_path)
    answers = {name: one.answers for name, one in records.items() if isinstance(one, Record)}
    # The large nodule is on slices 23 to 37: two windows hold its middle, two are only reached.
    assert [answers[f"LNDb-0001/{start:03d}"] for start in (0, 12, 24, 36)] == [
        (), ("nodule",), ("nodule",), ()
    ]  # fmt: skip
    # Scan 2 is stored from the head down; slice 40 is counted from the feet all the same.
    assert [answers[f"LNDb-0002/{start:03d}"] for start in (0, 12, 24)] == [
        ("no nodule",), ("no nodule",), ("nodule",)
    ]  # fmt: skip
    assert answers["LNDb-0003/000"] == ("no nodule",)  # a finding that is no nodule
    assert not any(name.startswith("LNDb-0100") for name in records)
    for name in ("LNDb-0004", "LNDb-0005"):
        missing = records[name]
        assert isinstance(missing, Unreadable) and f"{name}.mhd" in missing.reason


def test_the_slices_shown_of_lndb_go_through_the_nodule_and_tell_nothing(tmp_path: Path) -> None:
    ct.lndb(tmp_path / "ct/lndb")
    records = usable(listed("lndb", tmp_path))
    window = records["LNDb-0001/012"]
    assert window.frames == (12, 18, 24, 30)
    assert [path.name for path in window.masks] == ["LNDb-0001_rad1.mhd", "LNDb-0001_rad2.mhd"]
    assert records["LNDb-0002/024"].frames == (28, 34, 40, 46)
    assert records["LNDb-0002/024"].masks == ()  # under 3 mm nobody outlined it
    without = [one.frames for one in records.values() if one.answers == ("no nodule",)]
    assert {len(frames) for frames in without} == {4}
    assert {frames[1] - frames[0] for frames in without} == {6}
    assert len({frames[0] % 6 for frames in without}) > 2


def test_inspect_keeps_its_official_split_by_patient(tmp_path: Path) -> None:
    ct.inspect(tmp_path / "ct/inspect")
    records = listed("inspect", tmp_path)
    sides: dict[str, set[str | None]] = {}
    for record in records.values():
        assert isinstance(record, Record)
        sides.setdefault(record.patient_id, set()).add(record.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert Counter(split for (split,) in sides.values()) == {
        "train": 4, "validation": 1, "test": 3
    }  # fmt: skip
    answers = [records[f"CTPA/PE{study:05x}.nii.gz"].answers for study in (0, 1, 2, 3, 4, 15)]
    assert answers == [
        ("no pulmonary embolism",),
        ("acute pulmonary embolism",),
        ("acute subsegmental-only pulmonary embolism",),
        ("subsegmental-only pulmonary embolism",),
        ("chronic pulmonary embolism",),
        (),  # censored
    ]


def test_kits_names_the_tumour_in_a_mask_of_several_structures(tmp_path: Path) -> None:
    ct.kits23(tmp_path / "ct/kits23")
    records = listed("kits23", tmp_path)
    case = records["dataset/case_00001/imaging.nii.gz"]
    assert isinstance(case, Record)
    assert (case.answers, case.sex, case.age_years) == (("malignant",), "F", 41.0)
    assert case.mask_values == (2,) and case.masks[0].name == "segmentation.nii.gz"
    assert records["dataset/case_00000/imaging.nii.gz"].answers == ("benign",)
    assert records["dataset/case_00011/imaging.nii.gz"].answers == ()


def test_rspect_is_thinned_to_two_slices_of_a_label_and_study(tmp_path: Path) -> None:
    ct.rspect(tmp_path / "ct/rspect")
    records = listed("rspect", tmp_path)
    counts = Counter(
        (one.patient_id, *one.answers) for one in records.values() if isinstance(one, Record)
    )
    assert set(counts.values()) == {2}
    assert {key[1:] for key in counts if key[0] == "s00"} == {("no pulmonary embolism",)}
    assert {key[1:] for key in counts if key[0] == "s02"} == {
        ("no pulmonary embolism",), ("chronic pulmonary embolism",)
    }  # fmt: skip
    # Which of the two embolisms of a study a slice shows is not published.
    assert {key[1:] for key in counts if key[0] == "s03"} == {("no pulmonary embolism",), ()}
    assert {key[1:] for key in counts if key[0] == "s11"} == {()}


def test_the_slices_kept_of_rspect_do_not_depend_on_the_order_of_the_table(tmp_path: Path) -> None:
    root = tmp_path / "ct/rspect"
    ct.rspect(root)
    before = list(listed("rspect", tmp_path))
    header, *lines = (root / "train.csv").read_text().splitlines()
    table(root / "train.csv", header, *lines[::-1])
    assert list(listed("rspect", tmp_path)) == before


def test_a_table_of_rspect_without_its_columns_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "ct/rspect/train.csv", "StudyInstanceUID,SOPInstanceUID", "1,2")
    with pytest.raises(SourceError, match=r"train\.csv cannot be read .*SeriesInstanceUID"):
        listed("rspect", tmp_path)
    (tmp_path / "ct/rspect/train.csv").unlink()
    with pytest.raises(SourceError, match=r"train\.csv cannot be read .*No such file"):
        listed("rspect", tmp_path)


@needs_volumes
def test_slices_of_kits_go_through_the_tumour_and_only_it_is_boxed(tmp_path: Path) -> None:
    ct.kits23(tmp_path / "ct/kits23")
    _, rows = assembled(SOURCE["kits23"], tmp_path, tmp_path / "out")
    row = rows["dataset/case_00001/imaging.nii.gz"]
    assert len(row["images"]) == 4 and row["boxes"] == [[6, 5, 12, 8]]
    assert np.asarray(row["mask"])[5:8, 6:12].all()
    shown = np.asarray(row["images"][0])
    black = ct.hounsfield(1, 20)[5] <= -160  # the tumour is on slices 5 to 8; level 40, width 400
    black[5:8, 6:12] = False
    assert np.array_equal(shown == 255, np.asarray(row["mask"]) > 0)
    assert np.array_equal(shown == 0, black)


@needs_volumes
def test_a_nodule_of_lndb_is_boxed_by_what_any_radiologist_outlined(tmp_path: Path) -> None:
    ct.lndb(tmp_path / "ct/lndb")
    _, rows = assembled(SOURCE["lndb"], tmp_path, tmp_path / "out")
    assert rows["LNDb-0001/012"]["boxes"] == [[6, 4, 12, 9]]
    assert len(rows["LNDb-0001/012"]["images"]) == 4
    assert rows["LNDb-0002/024"]["boxes"] is None and rows["LNDb-0003/000"]["mask"] is None


def test_a_table_in_json_that_is_no_list_of_objects_is_refused(tmp_path: Path) -> None:
    ct.kits23(tmp_path / "ct/kits23")
    table_file = tmp_path / "ct/kits23/dataset/kits23.json"
    for text in ('{"case_id": "case_00000"}', "[1, 2]", "[{"):
        table_file.write_text(text)
        with pytest.raises(SourceError, match=r"kits23\.json cannot be read"):
            listed("kits23", tmp_path)
