"""All nine domains of the clinical kit, as real files in their own layouts, in one assembly."""

import time
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict, Image, List
from scipy import ndimage

from qoq_lib.data.assemble import Assembly, assemble, load_assembled
from qoq_lib.data.cards import load_cards
from qoq_lib.data.example import check_rows
from qoq_lib.data.sources import mri, pathology, ultrasound
from qoq_lib.data.sources.kit import KIT, mias_box, mias_patient
from qoq_lib.domains import DOMAIN_NAMES

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]


@pytest.fixture(scope="module")
def assembled(
    clinical_kit: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Assembly, DatasetDict]:
    """The whole kit, assembled once."""
    out = tmp_path_factory.mktemp("kit") / "assembled"
    start = time.monotonic()
    assembly = assemble("kit", out, data_root=clinical_kit)
    assert time.monotonic() - start < 120  # 60 s on two free cores; the machine may be busy
    return assembly, load_assembled(out)


def rows_of(data: DatasetDict, domain: str) -> list[dict]:
    """The rows of ``domain`` in all splits."""
    wanted = {
        name: [index for index, one in enumerate(split["domain"]) if one == domain]
        for name, split in data.items()
    }
    return [row for name, split in data.items() for row in split.select(wanted[name])]


def undecoded(data: DatasetDict) -> DatasetDict:
    """``data`` with images and masks as bytes, which is quick to walk through."""
    images = data.cast_column("images", List(Image(decode=False)))
    return images.cast_column("mask", Image(decode=False))


def test_there_is_one_source_per_domain() -> None:
    assert tuple(source.domain for source in KIT) == DOMAIN_NAMES


def test_subsets_of_data_sets_of_the_paper_are_theirs_and_the_others_have_no_card() -> None:
    cards = load_cards()
    known = {source.name: source for source in KIT if source.name in cards}
    assert set(known) == {"busi", "brain_tumor", "lc25000"}
    for name, source in known.items():
        assert (source.domain, source.license) == (cards[name].domain, cards[name].license)
        of_the_paper = next(
            one for one in (*ultrasound.SOURCES, *mri.SOURCES, *pathology.SOURCES)
            if one.name == name
        )  # fmt: skip
        assert set(source.options) <= set(of_the_paper.options)


def test_every_domain_is_in_train_validation_and_test(
    assembled: tuple[Assembly, DatasetDict],
) -> None:
    assembly, data = assembled
    assert tuple(assembly.rows) == DOMAIN_NAMES
    assert all(set(counts) == {"train", "validation", "test"} for counts in assembly.rows.values())
    assert {domain: sum(counts.values()) for domain, counts in assembly.rows.items()} == {
        "chest_xray": 120,
        "mammography": 44,
        "dermoscopy": 150,
        "ct": 480,
        "fundus": 50,
        "ultrasound": 350,
        "mri": 640,
        "pathology": 660,
        "ecg": 47,
    }
    assert [refusal.record for refusal in assembly.refused] == ["JS20004", "JS20008"]
    assert all("is constant in V2, V4, V6" in refusal.reason for refusal in assembly.refused)
    assert sum(map(len, data.values())) == 2541


def test_every_label_of_every_set_is_in_train_and_test(
    assembled: tuple[Assembly, DatasetDict],
) -> None:
    assembly, _ = assembled
    absent = {"atrial fibrillation or flutter"}  # in the label set of the source, not in the kit
    for source in KIT:
        counts = assembly.labels[source.name]
        assert set(counts) == set(source.options) - absent
        assert all({"train", "test"} <= set(by_split) for by_split in counts.values())


def test_what_is_left_out_is_counted(assembled: tuple[Assembly, DatasetDict]) -> None:
    assembly, _ = assembled
    assert assembly.not_here == {"covid_chestxray": 597, "mini_mias": 278, "idrid": 466}
    assert assembly.unlabelled == {"covid_chestxray": 41, "cinc2021": 1}


def test_rows_obey_the_schema_and_do_not_leak(assembled: tuple[Assembly, DatasetDict]) -> None:
    assembly, data = assembled
    split_of: dict[str, str] = {}
    id_split: dict[str, str] = {}
    for name, split in undecoded(data).items():
        check_rows(split)
        id_split |= dict.fromkeys(split["id"], name)
        for patient in split["patient_id"]:
            assert split_of.setdefault(patient, name) == name
    assert len(assembly.duplicates) == 31
    for duplicate in assembly.duplicates:
        assert len({id_split[row_id] for row_id in duplicate.ids}) == 1
    assert [one.ids for one in assembly.duplicates if not one.same_label] == [
        ["busi/benign/benign (433).png", "busi/malignant/malignant (145).png"]
    ]


def test_official_test_images_stay_in_test(assembled: tuple[Assembly, DatasetDict]) -> None:
    _, data = assembled
    for row in rows_of(undecoded(data), "fundus"):
        assert ("Testing" in row["id"]) == (row["split"] == "test")
    for row in rows_of(undecoded(data), "mri"):
        assert "/Testing/" not in row["id"] or row["split"] == "test"


def test_lesion_masks_and_boxes_lie_on_the_lesions(
    assembled: tuple[Assembly, DatasetDict],
) -> None:
    _, data = assembled
    for row in rows_of(data, "dermoscopy"):
        numbers, _ = ndimage.label(np.asarray(row["mask"]) > 0, np.ones((3, 3)))
        areas = np.bincount(numbers.ravel())
        areas[0] = 0
        mask = (areas >= areas.max() / 100)[numbers]  # some have specks of a few pixels
        columns, rows = np.nonzero(mask.any(0))[0], np.nonzero(mask.any(1))[0]
        edges = np.array(row["boxes"])
        hull = [*edges[:, :2].min(0), *edges[:, 2:].max(0)]
        assert hull == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert row["mask"].size == row["images"][0].size
    # Read from the top instead of the bottom, these two circles would lie on black background.
    films = {row["id"]: row for row in rows_of(data, "mammography")}
    for name in ("mdb015", "mdb021"):
        film = films[f"mini_mias/pgm/{name}.pgm"]
        [(x1, y1, x2, y2)] = np.array(film["boxes"], dtype=int)
        assert np.asarray(film["images"][0])[y1:y2, x1:x2].mean() > 100
    assert len(films["mini_mias/pgm/mdb223.pgm"]["boxes"]) == 2
    assert films["mini_mias/pgm/mdb216.pgm"]["boxes"] is None
    assert films["mini_mias/pgm/mdb216.pgm"]["answers"] == ["malignant abnormality"]


def test_mias_circles_and_patients() -> None:
    assert mias_box({"x": "535", "y": "425", "r": "197"}) == (338, 402, 732, 796)
    assert mias_box({"x": "10", "y": "1020", "r": "30"}) == (0, 0, 40, 34)
    assert mias_box({"x": "*NOTE", "y": "3*", "r": ""}) is None
    assert mias_patient({"Name": "mdb001"}) == mias_patient({"Name": "mdb002"}) == "001"
    assert mias_patient({"Name": "mdb003"}) == "002"


def test_ecgs_are_twelve_leads_of_ten_seconds_in_millivolts(
    assembled: tuple[Assembly, DatasetDict],
) -> None:
    _, data = assembled
    rows = {row["id"]: row for row in rows_of(data, "ecg")}
    for row in rows.values():
        signal = np.asarray(row["ecg"])
        assert signal.shape == (12, 5000) and row["ecg_rate_hz"] == 500
        assert row["ecg_leads"] == LEADS
        assert 0.05 < np.abs(signal).max() < 20
        assert np.allclose(signal[0] + signal[2], signal[1], atol=0.05)  # Einthoven: I + III = II
    assert rows["cinc2021/HR06003"]["answers"] == ["sinus tachycardia"]
    assert rows["cinc2021/E07500"]["age_years"] == 78
