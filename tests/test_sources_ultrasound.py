"""The ultrasound data sets, each from a miniature of its own layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import ultrasound
from layouts.volumes import HAS_VIDEOS
from miniatures import assembled, one_side_each

from qoq_lib.data.example import check_rows
from qoq_lib.data.sources.source import Record, SourceError
from qoq_lib.data.sources.ultrasound import SOURCES

SOURCE = {source.name: source for source in SOURCES}
needs_videos = pytest.mark.skipif(not HAS_VIDEOS, reason="the reader of videos is not installed")


def listed(name: str, data_root: Path) -> dict[str, Record]:
    """The records of a source by their id."""
    records = list(SOURCE[name].records(data_root))
    assert len({record.record_id for record in records}) == len(records)
    return {record.record_id: record for record in records if isinstance(record, Record)}


@pytest.mark.parametrize(
    ("name", "layout", "count"),
    [
        ("busi", ultrasound.busi, 33),
        pytest.param("covid_blues", ultrasound.covid_blues, 19, marks=needs_videos),
        pytest.param("covid_us", ultrasound.covid_us, 15, marks=needs_videos),
        pytest.param("echonet_dynamic", ultrasound.echonet_dynamic, 14, marks=needs_videos),
    ],
)
def test_rows_are_whole_and_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, layout: Callable[[Path], list[str]], count: int
) -> None:
    source = SOURCE[name]
    refused = layout(tmp_path / f"ultrasound/{name}")
    assembly, rows = assembled(source, tmp_path, tmp_path / "out")
    check_rows(rows.values())
    assert len(rows) == count and one_side_each(rows.values())
    assert set(assembly.labels[name]) == set(source.options)
    assert sorted(one.record for one in assembly.refused) == sorted(refused)
    # The question lists the options: without them every answer to COVID-BLUES was wrong.
    assert all(option in row["question"] for row in rows.values() for option in source.options)


def test_the_masks_of_busi_are_masks_and_not_images(tmp_path: Path) -> None:
    ultrasound.busi(tmp_path / "ultrasound/busi")
    assembly, rows = assembled(SOURCE["busi"], tmp_path, tmp_path / "out")
    assert not any("_mask" in name for name in rows)
    assert rows["benign/benign (2).png"]["boxes"] == [[4, 3, 11, 9], [14, 3, 21, 9]]
    assert rows["malignant/malignant (4).png"]["boxes"] == [[4, 3, 11, 9]]
    healthy = rows["normal/normal (1).png"]
    assert healthy["boxes"] == [] and not np.asarray(healthy["mask"]).any()
    reasons = {one.record: one.reason for one in assembly.refused}
    assert "normal (7)_mask.png is missing" in reasons["normal/normal (7).png"]


def test_covid_blues_has_the_patients_test_and_two_options(tmp_path: Path) -> None:
    ultrasound.covid_blues(tmp_path / "ultrasound/covid_blues")
    assert SOURCE["covid_blues"].options == ("COVID-19", "no COVID-19")
    records = listed("covid_blues", tmp_path)
    assert len(records) == 21
    second = records["lus_videos/patient_4_L3_2.mp4"]
    assert (second.patient_id, second.answers) == ("4", ("no COVID-19",))
    assert (second.sex, second.age_years) == ("M", 44.0)
    assert records["lus_videos/patient_1_R1.mp4"].answers == ("COVID-19",)
    assert records["lus_videos/patient_2_R1.mp4"].age_years is None  # "-99.0"


def test_covid_us_keeps_clips_of_one_patient_together_and_leaves_out_other_organs(
    tmp_path: Path,
) -> None:
    ultrasound.covid_us(tmp_path / "ultrasound/covid_us")
    records = listed("covid_us", tmp_path)
    of = {Path(name).name.removesuffix("_prc.avi"): one for name, one in records.items()}
    assert of["123_litfl_pneumonia"].patient_id == of["124_litfl_pneumonia"].patient_id
    assert of["132_litfl_pneumonia"].patient_id != of["123_litfl_pneumonia"].patient_id
    assert of["49_pocusatlas_covid"].patient_id == of["50_pocusatlas_covid"].patient_id
    assert of["1_butterfly_pneumonia"].patient_id == "1_butterfly_pneumonia"
    without = {name for name, one in of.items() if not one.answers}
    assert without == {"13_butterfly_covid", "44_litfl_pneumonia", "52_litfl_other"}


@needs_videos
def test_clips_of_covid_us_that_were_taken_down_are_counted(tmp_path: Path) -> None:
    ultrasound.covid_us(tmp_path / "ultrasound/covid_us")
    assembly, _ = assembled(SOURCE["covid_us"], tmp_path, tmp_path / "out")
    assert assembly.not_here == {"covid_us": 1} and assembly.unlabelled == {"covid_us": 3}


def test_a_traced_frame_of_echonet_has_a_box_around_the_ventricle(tmp_path: Path) -> None:
    ultrasound.echonet_dynamic(tmp_path / "ultrasound/echonet_dynamic")
    records = listed("echonet_dynamic", tmp_path)
    early, late = (records[f"0X0000000000000000/{frame}"] for frame in (1, 5))
    assert (early.frames, late.frames) == ((1,), (5,))
    assert early.boxes == ((10, 4, 25, 27),) and late.boxes == ((14, 4, 25, 27),)
    assert early.patient_id == late.patient_id and early.split == "train"
    assert records["0X0000000000000007/1"].split == "validation"
    assert records["0X0000000000000008/1"].split == "test"
    assert records["0X0000000000000009/0"].answers == ()  # never traced


@needs_videos
def test_a_row_of_echonet_shows_the_traced_frame_and_asks_where(tmp_path: Path) -> None:
    ultrasound.echonet_dynamic(tmp_path / "ultrasound/echonet_dynamic")
    assembly, rows = assembled(SOURCE["echonet_dynamic"], tmp_path, tmp_path / "out")
    early, late = (rows[f"0X0000000000000000/{frame}"] for frame in (1, 5))
    assert "draw a box" in early["question"] and early["options"] == ["left ventricle"]
    assert len(early["images"]) == 1 and early["boxes"] == [[10, 4, 25, 27]]
    pixels = [np.asarray(row["images"][0].convert("L"), dtype=int) for row in (early, late)]
    assert np.abs(pixels[0] - pixels[1]).mean() > 5
    assert assembly.duplicates == []  # two frames of one video are no copies


def test_a_tracing_without_a_frame_number_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "ultrasound/echonet_dynamic"
    ultrasound.echonet_dynamic(root)
    table = root / "VolumeTracings.csv"
    table.write_text(table.read_text() + "0X0000000000000002.avi,1,2,3,4,No Systolic\n")
    with pytest.raises(SourceError, match=r"VolumeTracings\.csv: the column 'Frame' holds 'No Sys"):
        listed("echonet_dynamic", tmp_path)
