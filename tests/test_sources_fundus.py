"""The fundus data sets, each from a miniature of its own layout."""

from collections.abc import Callable
from pathlib import Path

import pytest
from layouts import fundus
from miniatures import assembled, one_side_each

from qoq_lib.data.example import check_rows
from qoq_lib.data.sources.fundus import SOURCES

SOURCE = {source.name: source for source in SOURCES}
LAYOUTS: list[tuple[str, Callable[[Path], list[str]], int]] = [
    ("aptos2019", fundus.aptos2019, 18),
    ("messidor2", fundus.messidor2, 25),
    ("jichi", fundus.jichi, 38),
]


@pytest.mark.parametrize(("name", "layout", "count"), LAYOUTS)
def test_rows_are_whole_and_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, layout: Callable[[Path], list[str]], count: int
) -> None:
    source = SOURCE[name]
    refused = layout(tmp_path / source.folder)
    assembly, rows = assembled(source, tmp_path, tmp_path / "out")
    check_rows(rows.values())
    assert len(rows) == count and one_side_each(rows.values())
    assert {tuple(sorted(row["options"])) for row in rows.values()} == {
        tuple(sorted(source.options))
    }
    assert set(assembly.labels[name]) == set(source.options)
    assert sorted(one.record for one in assembly.refused) == sorted(refused)
    assert all(Path(one.record).name in one.reason for one in assembly.refused)


def test_the_eyes_of_one_examination_of_messidor_stay_together(tmp_path: Path) -> None:
    fundus.messidor2(tmp_path / "fundus/messidor2")
    assembly, rows = assembled(SOURCE["messidor2"], tmp_path, tmp_path / "out")
    eyes = [rows[f"IMAGES/IM00000{number}.JPG"] for number in (4, 5)]
    assert eyes[0]["patient_id"] == eyes[1]["patient_id"]
    assert len({row["patient_id"] for row in rows.values()}) == 14
    assert assembly.unlabelled == {"messidor2": 1} and "IMAGES/IM000009.JPG" not in rows


def test_photographs_of_one_patient_of_jichi_stay_together(tmp_path: Path) -> None:
    fundus.jichi(tmp_path / "fundus/jichi")
    _, rows = assembled(SOURCE["jichi"], tmp_path, tmp_path / "out")
    assert {row["patient_id"] for row in rows.values()} == {f"jichi/{n}" for n in range(1, 11)}
    # The grade of the one photograph, not of all four fields together, which here are all "pdr".
    assert rows["1_3_R.jpg"]["answers"] == ["no retinopathy"]
    assert rows["1_4_L.jpg"]["answers"] == ["simple retinopathy"]
