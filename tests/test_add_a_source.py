"""The worked example of docs/add_a_source.md, taken out of the page and run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from layouts.films import noise, picture, truncate
from miniatures import rows_of

from qoq_lib.data.cards import load_card
from qoq_lib.data.example import check_rows
from qoq_lib.data.sources.source import Source
from qoq_lib.data.storage import AssemblyError

PAGE = (ROOT / "docs" / "add_a_source.md").read_text(encoding="utf-8")
NODULE = np.s_[3:7, 5:9]


def blocks(language: str) -> list[str]:
    """The fenced blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def declared() -> dict[str, Any]:
    """What the page's declaration defines."""
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    return names


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """The folder of the page, its table word for word."""
    root = tmp_path / "ultrasound" / "harbour_thyroid"
    [table] = blocks("csv")
    for seed, line in enumerate(table.splitlines()[1:]):
        scan, finding = line.split(",")[0], line.split(",")[4]
        pixels = noise(seed) // 2
        if finding != "-":
            pixels[NODULE] = 255
            picture(root / "masks" / f"{scan}.png", (pixels == 255).astype(np.uint8))
        picture(root / "images" / f"{scan}.png", pixels)
    (root / "nodules.csv").write_text(table)
    return tmp_path


def test_the_declaration_is_short_and_its_card_agrees(
    tmp_path: Path, declared: dict[str, Any]
) -> None:
    assert len(blocks("python")[0].splitlines()) <= 40
    source = declared["HARBOUR_THYROID"]
    [card_text] = blocks("markdown")
    (tmp_path / f"{source.name}.md").write_text(card_text)
    card = load_card(source.name, tmp_path)
    assert (card.name, card.domain, card.license) == (source.name, source.domain, source.license)


def test_the_example_is_assembled_as_the_page_says(
    tmp_path: Path, declared: dict[str, Any], data_root: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    exec(blocks("python")[1], declared | {"data_root": data_root, "out": out})
    assert "'no nodule'" in capsys.readouterr().out
    rows = {Path(row["id"]).stem: row for row in rows_of(out)}
    check_rows(rows.values())
    assert set(rows) == {"T001", "T002", "T003", "T004", "T006", "T007", "T008"}
    first, healthy = rows["T001"], rows["T007"]
    assert (first["answers"], first["sex"], first["age_years"]) == (["benign nodule"], "F", 51)
    assert first["patient_id"] == rows["T002"]["patient_id"] and first["boxes"] == [[5, 3, 9, 7]]
    assert healthy["answers"] == ["no nodule"] and healthy["mask"] is None
    assert {name for name, row in rows.items() if row["split"] == "test"} == {
        "T006",
        "T007",
        "T008",
    }


def test_the_example_refuses_what_cannot_be_read(
    tmp_path: Path, declared: dict[str, Any], data_root: Path
) -> None:
    source: Source = declared["HARBOUR_THYROID"]
    root = data_root / source.folder
    truncate(root / "images" / "T002.png")
    (root / "masks" / "T003.png").unlink()
    (root / "images" / "T008.png").unlink()
    names = declared | {"data_root": data_root, "out": tmp_path / "out"}
    with pytest.raises(AssemblyError, match=r"of 7 records are refused.*T008\.png is listed but"):
        exec(blocks("python")[1], names)
    code = blocks("python")[1].replace("out, name", "out, on_error='skip', name")
    exec(code, names)
    refused = {Path(one.record).stem: one.reason for one in names["assembly"].refused}
    assert set(refused) == {"T002", "T003", "T008"}
    assert all(f"{scan}.png" in reason for scan, reason in refused.items())
    assert re.search(r"masks/T003\.png is missing", refused["T003"])
