"""The dermoscopy sources on miniatures of their own folder trees."""

from pathlib import Path

import numpy as np
import pytest
from layouts import dermoscopy as layouts
from miniatures import rows_of

from qoq_lib.data.assemble import assemble_sources
from qoq_lib.data.sources.dermoscopy import SOURCES
from qoq_lib.data.sources.source import SourceError
from qoq_lib.data.storage import Assembly

NAMED = {source.name: source for source in SOURCES}


def assembled(name: str, data_root: Path) -> tuple[Assembly, dict[str, dict]]:
    """The miniature, assembled without what is damaged; its rows by the name of their image."""
    out = data_root / "out"
    assembly = assemble_sources([NAMED[name]], data_root, out, name="test", on_error="skip")
    return assembly, {Path(row["id"]).stem: row for row in rows_of(out)}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_no_patient_or_lesion_is_on_two_sides(name: str, tmp_path: Path) -> None:
    assembly, rows = assembled(name, getattr(layouts, name)(tmp_path))
    sides: dict[str, set[str]] = {}
    for row in rows.values():
        sides.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in sides.values())
    assert len(sides) < 0.6 * len(rows)
    assert {"train", "test"} <= set().union(*sides.values())
    reasons = [refusal.reason for refusal in assembly.refused]
    assert len(reasons) == 2
    assert "is listed but missing" in reasons[0] and "cannot be read" in reasons[1]


def test_isic2020_carries_class_patient_sex_and_age(tmp_path: Path) -> None:
    assembly, rows = assembled("isic2020", layouts.isic2020(tmp_path))
    assert len(rows) == 30
    first, fourth = rows["ISIC_0000000"], rows["ISIC_0000004"]
    assert first["answers"] == ["malignant"] and fourth["answers"] == ["benign"]
    assert first["patient_id"] == "isic2020/IP_0000000"
    assert (first["sex"], first["age_years"]) == ("M", 45)
    assert (fourth["sex"], fourth["age_years"]) == ("F", None)
    refused = [Path(refusal.record).stem for refusal in assembly.refused]
    assert refused == ["ISIC_0000009", "ISIC_0000003"]


def test_ham10000_joins_classes_lesions_and_the_outlines_of_task_1(tmp_path: Path) -> None:
    _, rows = assembled("ham10000", layouts.ham10000(tmp_path))
    by_number = {int(name[5:]) - 24306: row for name, row in rows.items()}
    answers = [by_number[number]["answers"][0] for number in (0, 1, 2, 10, 4, 5, 6)]
    assert answers == [
        "melanoma",
        "nevus",
        "basal cell carcinoma",
        "actinic keratosis or squamous cell carcinoma",
        "other",
        "other",
        "other",
    ]
    assert by_number[0]["patient_id"] == by_number[21]["patient_id"] == "ham10000/HAM_0000000"
    outlined = {number for number, row in by_number.items() if row["mask"] is not None}
    assert outlined == {0, 1, 2}
    assert by_number[0]["boxes"] == [[4, 2, 9, 6]] and by_number[4]["boxes"] is None
    assert np.asarray(by_number[0]["mask"])[2:6, 4:9].all()


def test_ham10000_without_the_lesion_of_an_image_is_refused(tmp_path: Path) -> None:
    root = layouts.ham10000(tmp_path) / "dermoscopy" / "ham10000"
    table = root / "ISIC2018_Task3_Training_LesionGroupings.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(SourceError, match=r"LesionGroupings\.csv has 0 lines of 'ISIC_0024347'"):
        list(NAMED["ham10000"].records(tmp_path))


def test_pad_ufes_20_finds_its_photographs_in_any_folder(tmp_path: Path) -> None:
    assembly, rows = assembled("pad_ufes_20", layouts.pad_ufes_20(tmp_path))
    assert len(rows) == 34
    by_number = {int(name.split("_")[2]): row for name, row in rows.items()}
    answers = [by_number[number]["answers"][0] for number in (0, 1, 2, 15, 4, 5)]
    assert answers[3] == answers[4] == "actinic keratosis or squamous cell carcinoma"
    assert answers[:3] == ["melanoma", "nevus", "basal cell carcinoma"] and answers[5] == "other"
    assert by_number[1]["sex"] == "F" and by_number[2]["sex"] is None
    assert by_number[1]["id"] == "pad_ufes_20/images/PAT_1_1_701.png"
    assert assembly.refused[0].record == "images/PAT_9_9_709.png"
