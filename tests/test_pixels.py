"""Pixels: one size that the model sees, and boxes that find their way there and back."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qoq_lib.model.pixels import ImageSizeError, convert_boxes, model_size, model_view
from qoq_lib.model.tiny import tiny_processor

TINY = tiny_processor().image_processor
PUBLISHED = SimpleNamespace(
    patch_size=14, merge_size=2, size={"shortest_edge": 56 * 56, "longest_edge": 12_845_056}
)
processors = st.sampled_from([TINY, PUBLISHED])
sides = st.integers(28, 4000)
FRAMES = ["original", "model", "normalised"]


@given(sides, sides, processors)
def test_sizes_are_whole_patches_within_bounds_and_final(
    width: int, height: int, bounds: Any
) -> None:
    size = model_size(width, height, bounds)
    assert size[0] % 28 == 0 and size[1] % 28 == 0
    assert bounds.size["shortest_edge"] <= size[0] * size[1] <= bounds.size["longest_edge"]
    assert model_size(*size, bounds) == size


@given(sides, sides, processors, st.permutations(FRAMES), st.data())
def test_boxes_come_back_within_a_pixel(
    width: int, height: int, bounds: Any, route: list[str], data: st.DataObject
) -> None:
    x = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2, unique=True)))
    y = sorted(data.draw(st.lists(st.integers(0, height), min_size=2, max_size=2, unique=True)))
    box, size = [x[0], y[0], x[1], y[1]], (width, height)
    extents = {"original": size, "model": model_size(*size, bounds), "normalised": (1, 1)}
    boxes: list[list[float]] = [box]
    here = "original"
    for there in [*route, "original"]:
        boxes = convert_boxes(boxes, size, bounds, source=here, target=there)
        here, (x1, y1, x2, y2) = there, boxes[0]
        assert 0 <= x1 < x2 <= extents[here][0] * (1 + 1e-9)
        assert 0 <= y1 < y2 <= extents[here][1] * (1 + 1e-9)
    assert boxes[0] == pytest.approx(box, abs=1)


def test_boxes_by_hand() -> None:
    bounds = SimpleNamespace(
        patch_size=14, merge_size=2, size={"shortest_edge": 784, "longest_edge": 56 * 28}
    )
    box, size = [[28, 14, 112, 56]], (112, 56)  # seen at 56 x 28
    assert convert_boxes(box, size, bounds, source="original", target="model") == [[14, 7, 56, 28]]
    assert convert_boxes(box, size, bounds, source="original", target="normalised") == [
        [0.25, 0.25, 1, 1]
    ]
    half = [[0.5, 0, 1, 0.5]]
    assert convert_boxes(half, size, bounds, source="normalised", target="model") == [
        [28, 0, 56, 14]
    ]


def row(images: list[Image.Image], boxes: list[list[float]] | None) -> dict[str, Any]:
    return {"id": "q", "images": images, "boxes": boxes, "ecg": None}


def test_a_view_by_hand_leaves_the_row_alone() -> None:
    image = Image.new("L", (112, 56), 7)
    original = row([image, Image.new("RGB", (56, 56))], [[28, 14, 112, 56]])
    bounds = SimpleNamespace(
        patch_size=14, merge_size=2, size={"shortest_edge": 784, "longest_edge": 56 * 28}
    )
    view = model_view(original, bounds)
    assert [(im.mode, im.size) for im in view["images"]] == [("RGB", (56, 28)), ("RGB", (28, 28))]
    assert view["boxes"] == [[14, 7, 56, 28]]
    assert original["boxes"] == [[28, 14, 112, 56]] and original["images"][0] is image


@settings(max_examples=25)
@given(st.integers(28, 600), st.integers(28, 600))
def test_the_processor_leaves_a_view_as_it_is(width: int, height: int) -> None:
    (image,) = model_view(row([Image.new("RGB", (width, height))], None), TINY)["images"]
    _, rows, columns = TINY(images=[image], return_tensors="np")["image_grid_thw"][0]
    assert (columns * 14, rows * 14) == image.size


def test_the_box_stays_on_the_lesion() -> None:
    pixels = np.zeros((300, 400), np.uint8)
    pixels[60:180, 200:360] = 255
    bounds = SimpleNamespace(
        patch_size=14, merge_size=2, size={"shortest_edge": 784, "longest_edge": 168 * 224}
    )
    view = model_view(row([Image.fromarray(pixels)], [[200, 60, 360, 180]]), bounds)
    seen = np.asarray(view["images"][0].convert("L")) > 127
    ys, xs = np.where(seen)
    found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert found == pytest.approx(view["boxes"][0], abs=1)


@pytest.mark.parametrize(("images", "boxes"), [([], None), (None, None), ([], [])])
def test_rows_without_images(images: Any, boxes: Any) -> None:
    view = model_view({"id": "q", "images": images, "boxes": boxes}, TINY)
    assert view["images"] == [] and view["boxes"] == boxes


def test_strips_and_tight_bounds_are_refused_in_a_sentence() -> None:
    with pytest.raises(ImageSizeError, match="An image of 9000 x 30 pixels"):
        model_size(9000, 30, TINY)
    tight = SimpleNamespace(
        patch_size=14, merge_size=2, size={"shortest_edge": 3136, "longest_edge": 3136}
    )
    with pytest.raises(ImageSizeError, match="133 x 100 pixels finds no size"):
        model_size(133, 100, tight)
