"""Masks and boxes of every source that has them, held against what is drawn in its miniature.

Each miniature draws its lesions brighter than all else; of BCSS the red of a pixel is the code of
its tissue. What a row shows as lesion must lie inside its boxes, and its mask must be just that.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import chest_xray, ct, dermoscopy, mammography, pathology, ultrasound
from layouts.volumes import HAS_VIDEOS
from miniatures import assembled

from qoq_lib.data import sources

BRIGHT = 150
TISSUES = {"tumor": (1, 19, 20), "stroma": (2,), "inflammatory infiltrate": (3, 10, 11)}
HAS_VOLUMES = all(map(importlib.util.find_spec, ("nibabel", "SimpleITK")))


@dataclass(frozen=True)
class Drawn:
    """A source's miniature, how many of its rows have boxes, and how far these may be off.

    ``slack`` is 1 pixel where tables give fractions, 2 where a video blurs.
    """

    module: str
    layout: Callable[[Path], Any]
    boxed: int
    slack: int = 0
    readable: bool = True

    @property
    def name(self) -> str:
        return self.layout.__name__


SOURCES = (
    Drawn("chest_xray", chest_xray.vindr_cxr, 3, slack=1),
    Drawn("mammography", mammography.vindr_mammo, 1, slack=1),
    Drawn("mammography", mammography.cbis_ddsm, 4),
    Drawn("dermoscopy", dermoscopy.ham10000, 3),
    Drawn("ct", ct.lndb, 2, readable=HAS_VOLUMES),
    Drawn("ct", ct.kits23, 9, readable=HAS_VOLUMES),
    Drawn("ct", ct.hemorrhage, 10),
    Drawn("ultrasound", ultrasound.busi, 22),
    Drawn("ultrasound", ultrasound.echonet_dynamic, 14, slack=2, readable=HAS_VIDEOS),
    Drawn("pathology", pathology.bcss, 19),
)


def lesion_of(row: dict) -> np.ndarray:
    """What a row shows as lesion in any of its first file's images: height x width."""
    shown = row["images"][:1] if row["dataset"] == "hemorrhage" else row["images"]
    if row["dataset"] == "bcss":
        [answer] = row["answers"]
        return np.isin(np.asarray(shown[0])[:, :, 0], TISSUES.get(answer, (4,)))
    return np.any([np.asarray(image.convert("L")) > BRIGHT for image in shown], axis=0)


@pytest.mark.parametrize("drawn", SOURCES, ids=lambda drawn: drawn.name)
def test_the_drawn_lesions_are_inside_boxes_and_masks_and_nothing_else_is(
    tmp_path: Path, drawn: Drawn
) -> None:
    if not drawn.readable:
        pytest.skip("its reader is in the extra 'data'")
    module = importlib.import_module(f"{sources.__name__}.{drawn.module}")
    source = next(one for one in module.SOURCES if one.name == drawn.name)
    in_folder = drawn.module in ("ct", "ultrasound")  # the others write their own folders
    drawn.layout(tmp_path / source.folder if in_folder else tmp_path)
    _, rows = assembled(source, tmp_path, tmp_path / "out")
    assert sum(bool(row["boxes"]) for row in rows.values()) == drawn.boxed
    for name, row in rows.items():
        if row["boxes"]:
            check_boxes(row, drawn.slack, name)
        if row["mask"] is not None:
            assert np.array_equal(np.asarray(row["mask"]) > 0, lesion_of(row)), name


def check_boxes(row: dict, slack: int, name: str) -> None:
    """No lesion outside the boxes, and each box as tight as ``slack`` allows."""
    lesion = lesion_of(row)
    outside = lesion.copy()
    for x1, y1, x2, y2 in row["boxes"]:
        left, top, right, bottom = floor(x1), floor(y1), ceil(x2), ceil(y2)
        inside = lesion[top:bottom, left:right]
        assert inside.any(), f"{name}: a box without a lesion"
        rows, columns = np.nonzero(inside)
        gaps = (rows.min(), columns.min(), bottom - top - 1 - rows.max())
        assert max(*gaps, right - left - 1 - columns.max()) <= slack, f"{name}: a loose box"
        outside[max(top - slack, 0) : bottom + slack, max(left - slack, 0) : right + slack] = False
    assert not outside.any(), f"{name}: a lesion outside the boxes"
