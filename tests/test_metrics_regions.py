"""Regions that an answer draws, beside the boxes and the mask of the row."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_metrics_beside import overall, table


def located(said: list[list[int]], **truth: Any) -> dict[str, Any]:
    block = json.dumps([{"bbox_2d": corners, "label": "a"} for corners in said])
    row = table(["a"], ["a"]).assign(completion=f"```json\n{block}\n```\\boxed{{a}}")
    return overall(row.assign(**{name: [value] for name, value in truth.items()}))


def test_regions_by_hand() -> None:
    two = [[0, 0, 10, 10], [20, 20, 30, 30]]
    assert located(two, boxes=two)["box_iou"] == 1.0
    half = located([[0, 0, 10, 5]], boxes=two)  # half of one, the other missed
    assert half["box_iou"] == pytest.approx(0.25) and half["pointing"] == 1.0
    beside = located([[40, 40, 50, 50], [0, 0, 10, 10]], boxes=two[:1])
    assert beside["pointing"] == 0.0 and beside["box_iou"] == pytest.approx(0.5)
    assert located([], boxes=two)["box_iou"] == located([], boxes=two)["pointing"] == 0.0
    unknown = located(two, boxes=None)
    assert "box_iou" not in unknown and "pointing" not in unknown and "mask_iou" not in unknown


def test_masks_by_hand() -> None:
    pixels = np.zeros((40, 40), np.uint8)
    pixels[10:20, 10:20] = 255
    pixels[10:15, 10:15] = 0  # three quarters of the box around it
    mask = png_of(pixels)
    found = located([[10, 10, 20, 20]], mask=mask)
    assert found["mask_iou"] == pytest.approx(0.75) and found["rows"]["mask_iou"] == 1
    assert found["pointing"] == 1.0 and "box_iou" not in found
    assert located([[30, 30, 60, 60]], mask=mask)["pointing"] == 0.0


def test_pointing_at_a_speck_is_no_hit() -> None:
    pixels = np.zeros((60, 60), np.uint8)
    pixels[10:30, 10:30] = 255
    pixels[50, 50] = 255
    at_speck = located([[49, 49, 52, 52]], mask=png_of(pixels))
    assert at_speck["pointing"] == at_speck["mask_iou"] == 0.0


def png_of(pixels: np.ndarray) -> bytes:
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue()
