"""The pathology sets in their own layouts: labels, patches with their tissue, splits by site."""

from pathlib import Path

import numpy as np
import pytest
from layouts import pathology as layout
from miniatures import rows_of
from PIL import Image

from qoq_lib.data.assemble import Assembly, assemble_sources
from qoq_lib.data.example import check_rows
from qoq_lib.data.sources.pathology import SOURCES
from qoq_lib.data.storage import AssemblyError

LC25000, BCSS = SOURCES


@pytest.fixture(scope="module")
def bcss(tmp_path_factory: pytest.TempPathFactory) -> tuple[Assembly, dict[str, dict]]:
    """The regions, assembled once."""
    folder = tmp_path_factory.mktemp("bcss")
    assembly = assemble_sources(
        [BCSS], layout.bcss(folder), folder / "out", name="test", on_error="skip"
    )
    return assembly, {row["id"]: row for row in rows_of(folder / "out")}


def test_lc25000_has_both_organs(tmp_path: Path) -> None:
    root, out = layout.lc25000(tmp_path / "data"), tmp_path / "out"
    with pytest.raises(AssemblyError, match=r"1 of 60 .*lungn4\.jpeg cannot be read"):
        assemble_sources([LC25000], root, out, name="test")
    assembly = assemble_sources([LC25000], root, out, name="test", on_error="skip")
    rows = rows_of(out)
    check_rows(rows)
    assert len(rows) == 59 and len(assembly.refused) == 1
    assert {
        label: sum(counts.values()) for label, counts in assembly.labels["lc25000"].items()
    } == {
        "lung adenocarcinoma": 12,
        "lung squamous cell carcinoma": 12,
        "benign lung tissue": 11,
        "colon adenocarcinoma": 12,
        "benign colonic tissue": 12,
    }


def test_a_patch_is_asked_for_its_predominant_tissue(
    bcss: tuple[Assembly, dict[str, dict]],
) -> None:
    _, rows = bcss
    check_rows(rows.values())
    tissues = {row["id"].removeprefix("bcss/"): row["answers"] for row in rows.values()}
    first = "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500"
    # Its second patch is a third stroma, its third "other", its fourth outside the region.
    assert {name: tissue for name, tissue in tissues.items() if first in name} == {
        f"{first}_x0_y0": ["tumor"]
    }
    second = "TCGA-A1-A0SK-DX1_xmin100_ymin200_MPP-0.2500"
    assert tissues[f"{second}_x0_y0"] == tissues[f"{second}_x512_y512"]
    assert tissues[f"{second}_x512_y512"] == ["inflammatory infiltrate"]
    assert tissues[f"{second}_x512_y0"] == ["necrosis"]
    assert tissues[f"{second}_x0_y512"] == ["tumor"]  # carcinoma in situ
    assert len(rows) == 1 + 4 + 4 + 4 + 4 + 2
    assert all("tissue covers most" in row["question"] for row in rows.values())


def test_picture_mask_and_box_are_of_the_same_patch(bcss: tuple[Assembly, dict[str, dict]]) -> None:
    _, rows = bcss
    row = rows["bcss/TCGA-OL-A5D6-DX1_xmin115108_ymin40554_MPP-0.2500_x512_y512"]
    picture, mask = np.asarray(row["images"][0]), np.asarray(row["mask"])
    assert picture.shape == (512, 512, 3) and mask.shape == (512, 512)
    assert (picture[0, 0, 1], picture[0, 0, 2]) == (512 // 8, 512 // 8)
    assert row["boxes"] == [[0, 128, 512, 512]]
    assert set(picture[mask > 0][:, 0]) == {4} and set(picture[mask == 0][:, 0]) == {0}


def test_the_test_sites_are_the_official_ones_and_no_patient_straddles(
    bcss: tuple[Assembly, dict[str, dict]],
) -> None:
    assembly, rows = bcss
    for name, row in rows.items():
        official = name.split("-")[1] in ("OL", "E2")
        assert (row["split"] == "test") == official
    assert {row["patient_id"] for row in rows.values() if "A0SK" in row["id"]} == {
        "bcss/TCGA-A1-A0SK"
    }
    assert assembly.duplicates == []  # patches of one region are no copies of each other


def test_a_damaged_and_a_missing_file_refuse_their_region_by_name(
    bcss: tuple[Assembly, dict[str, dict]],
) -> None:
    assembly, _ = bcss
    damaged, missing = assembly.refused
    assert damaged.record == "TCGA-C8-A131-DX1_xmin1_ymin1_MPP-0.2500"
    assert "masks" in damaged.reason and "cannot be read" in damaged.reason
    assert missing.record == "TCGA-D8-A131-DX1_xmin1_ymin1_MPP-0.2500"
    assert "images" in missing.reason and "is missing" in missing.reason


def test_a_mask_larger_than_its_picture_is_refused(tmp_path: Path) -> None:
    root = layout.bcss(tmp_path)
    name = "TCGA-A2-A04P-DX1_xmin8000_ymin3000_MPP-0.2500.png"
    picture = root / "pathology" / "bcss" / "images" / name
    Image.open(picture).crop((0, 0, 600, 600)).save(picture)
    assembly = assemble_sources([BCSS], root, tmp_path / "out", name="test", on_error="skip")
    refused = [one for one in assembly.refused if "A04P" in one.record]
    assert len(refused) == 3 and all("no part" in one.reason for one in refused)
