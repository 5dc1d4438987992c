"""The mammography sources on miniatures of their own folder trees."""

from pathlib import Path

import numpy as np
import pytest
from layouts import mammography as layouts
from miniatures import rows_of

from qoq_lib.data import readers
from qoq_lib.data.assemble import assemble_sources
from qoq_lib.data.sources.mammography import SOURCES
from qoq_lib.data.sources.source import Record, Unreadable
from qoq_lib.data.storage import Assembly

NAMED = {source.name: source for source in SOURCES}
needs_dicom = pytest.mark.skipif(
    not hasattr(readers, "read_images"), reason="no reader of DICOM films yet"
)


def records(name: str, data_root: Path) -> list[Record]:
    """The records of a source, without what cannot even be listed."""
    return [one for one in NAMED[name].records(data_root) if isinstance(one, Record)]


def assembled(name: str, data_root: Path) -> tuple[Assembly, list[dict]]:
    """The miniature, assembled without what is damaged, and its rows."""
    out = data_root / "out"
    assembly = assemble_sources([NAMED[name]], data_root, out, name="test", on_error="skip")
    return assembly, rows_of(out)


def cmmd(data_root: Path) -> Path:
    """The miniature of CMMD, where spreadsheets can be read."""
    pytest.importorskip("openpyxl")
    return layouts.cmmd(data_root)


def test_vindr_mammo_has_the_official_split_and_the_boxes_of_its_findings(tmp_path: Path) -> None:
    found = {
        Path(one.record_id).stem: one
        for one in records("vindr_mammo", layouts.vindr_mammo(tmp_path))
    }
    assert len(found) == 16
    assert {name: one.answers for name, one in found.items() if "R1" in name} == {
        "aR1": ("BI-RADS 4",),
        "bR1": ("BI-RADS 1",),
        "cR1": ("BI-RADS 2",),
        "dR1": ("BI-RADS 5",),
    }
    assert found["aL1"].boxes == ((2, 3, 8, 9), (9.5, 1, 12, 4)) and found["aL2"].boxes == ()
    assert {name[0] for name, one in found.items() if one.split == "test"} == {"d"}
    assert {one.patient_id for name, one in found.items() if name[0] == "a"} == {"a"}


@needs_dicom
def test_vindr_mammo_is_assembled_from_its_films(tmp_path: Path) -> None:
    assembly, rows = assembled("vindr_mammo", layouts.vindr_mammo(tmp_path))
    assert len(rows) == 14 and len({row["patient_id"] for row in rows}) == 4
    boxes = {row["id"]: row["boxes"] for row in rows}
    assert boxes["vindr_mammo/images/a/aL1.dicom"] == [[2, 3, 8, 9], [9.5, 1, 12, 4]]
    refused = {Path(refusal.record).stem: refusal.reason for refusal in assembly.refused}
    assert set(refused) == {"cL1", "cL2"} and "is listed but missing" in refused["cL2"]


def test_cbis_ddsm_takes_the_highest_assessment_of_a_film(tmp_path: Path) -> None:
    found = records("cbis_ddsm", layouts.cbis_ddsm(tmp_path))
    by_subject = {Path(one.record_id).parts[1]: one for one in found}
    assert {name.removesuffix("_LEFT_CC"): one.answers for name, one in by_subject.items()} == {
        "Mass-Training_P_00001": ("BI-RADS 5",),
        "Mass-Training_P_00002": (),  # 0: no assessment yet
        "Mass-Training_P_00005": ("BI-RADS 3",),
        "Mass-Training_P_00006": ("BI-RADS 3",),
        "Mass-Test_P_00003": ("BI-RADS 2",),
        "Calc-Training_P_00004": ("BI-RADS 3",),
        "Calc-Test_P_00001": ("BI-RADS 2",),
    }
    both = [one for one in found if one.patient_id == "P_00001"]
    assert [one.split for one in both] == ["train", "test"]
    assert all(one.images[0].is_file() for one in found if one.patient_id != "P_00006")


def test_cbis_ddsm_tells_masks_from_cut_outs(tmp_path: Path) -> None:
    found = records("cbis_ddsm", layouts.cbis_ddsm(tmp_path))
    masks = found[0].masks
    assert [mask.name for mask in masks] == ["1-2.dcm", "1-1.dcm"]
    assert [mask.parts[-4].removeprefix("Mass-Training_") for mask in masks] == [
        "P_00001_LEFT_CC_1",
        "P_00001_LEFT_CC_2",
    ]


@needs_dicom
def test_cbis_ddsm_joins_masks_and_moves_a_patient_whole_to_test(tmp_path: Path) -> None:
    assembly, rows = assembled("cbis_ddsm", layouts.cbis_ddsm(tmp_path))
    first = [row for row in rows if row["patient_id"] == "cbis_ddsm/P_00001"]
    assert [row["split"] for row in first] == ["test", "test"]
    two_masses = next(row for row in first if "Mass" in row["id"])
    assert two_masses["boxes"] == [[5, 2, 8, 5], [10, 2, 13, 5]]
    assert np.asarray(two_masses["mask"]).sum() == 18 * 255
    assert assembly.unlabelled == {"cbis_ddsm": 1}
    assert ["P_0000" in one.record for one in assembly.refused] == [True, True]


def test_cmmd_gives_each_breast_its_own_films_and_label(tmp_path: Path) -> None:
    found = {one.record_id: one for one in records("cmmd", cmmd(tmp_path))}
    left, right = found["D1-0001/L"], found["D1-0001/R"]
    assert (left.answers, right.answers) == (("malignant",), ("benign",))
    assert [film.name for film in left.images] == ["1-1.dcm", "1-2.dcm"]
    assert [film.name for film in right.images] == ["1-3.dcm", "1-4.dcm"]
    assert left.patient_id == right.patient_id and left.age_years == 41
    assert [film.name for film in found["D1-0003/L"].images] == ["1-1.dcm", "1-2.dcm"]
    assert found["D1-0003/L"].answers == ("benign",)


def test_cmmd_refuses_a_breast_without_films_or_with_one_that_may_be_another(
    tmp_path: Path,
) -> None:
    refused = {
        one.record_id: one.reason
        for one in NAMED["cmmd"].records(cmmd(tmp_path))
        if isinstance(one, Unreadable)
    }
    assert set(refused) == {"D1-0005/L", "D1-0006/L"}
    assert "1-1.dcm does not say which breast it shows" in refused["D1-0005/L"]
    assert "D1-0006 has no film of side L" in refused["D1-0006/L"]


@needs_dicom
def test_cmmd_is_split_by_patient_and_counts_what_it_refuses(tmp_path: Path) -> None:
    assembly, rows = assembled("cmmd", cmmd(tmp_path))
    assert len(rows) == 11 and all(len(row["images"]) == 2 for row in rows)
    assert len({row["split"] for row in rows if row["patient_id"] == "cmmd/D1-0001"}) == 1
    assert [refusal.record for refusal in assembly.refused] == ["D1-0005/L", "D1-0006/L"]
