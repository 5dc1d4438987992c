"""Volumes and videos: which slices are drawn, their grey levels, and refusals."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qoq_lib.data.frames import FrameError, evenly_spaced_frames


def ramp(depth: int) -> np.ndarray:
    """Slice k is all k."""
    return np.arange(depth, dtype=np.uint8).repeat(6).reshape(depth, 2, 3)


def drawn(depth: int, **options: Any) -> list[int]:
    return [image.getpixel((0, 0)) for image in evenly_spaced_frames(ramp(depth), **options)]


def test_four_frames_stand_in_the_middle_of_their_quarters() -> None:
    assert drawn(4) == [0, 1, 2, 3]
    assert drawn(10) == [1, 3, 6, 8]
    assert drawn(40) == [5, 15, 25, 35]
    assert drawn(9, frames=1) == [4]


@given(st.integers(1, 200), st.data())
def test_frames_are_in_order_even_and_alike_from_both_ends(depth: int, data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, depth))
    found = np.array(drawn(depth, frames=frames))
    assert len(found) == frames and 0 <= found[0] and found[-1] < depth
    steps = np.diff(found)
    assert frames == 1 or (steps.min() >= 1 and steps.max() - steps.min() <= 1)
    assert abs(found[0] - (depth - 1 - found[-1])) <= 1


def test_a_volume_keeps_one_grey_scale() -> None:
    volume = np.stack([np.full((4, 5), level) for level in (-1000, 0, 200, 1000, 40)]).astype("<i2")
    images = evenly_spaced_frames(volume, frames=5)
    assert [image.size for image in images] == [(5, 4)] * 5
    assert [image.getpixel((0, 0)) for image in images] == [0, 128, 153, 255, 133]
    assert [image.mode for image in images] == ["L"] * 5


def test_videos_and_lists_of_images() -> None:
    video = np.random.default_rng(0).integers(0, 255, (8, 4, 5, 3), dtype=np.uint8)
    images = evenly_spaced_frames(video, frames=2)
    assert all(np.array_equal(im, video[k]) for im, k in zip(images, (2, 6), strict=True))
    slices = [Image.new("L", (2, 2), level) for level in range(8)]
    assert evenly_spaced_frames(slices, frames=2) == [slices[2], slices[6]]


def test_a_constant_volume_is_black() -> None:
    assert evenly_spaced_frames(np.ones((4, 2, 2)))[0].getpixel((0, 0)) == 0


@pytest.mark.parametrize(
    ("volume", "frames", "message"),
    [
        (np.zeros((0, 4, 4)), 4, "4 frames cannot be drawn from 0 slices"),
        ([], 4, "4 frames cannot be drawn from 0 slices"),
        (np.zeros((3, 4, 4)), 4, "4 frames cannot be drawn from 3 slices"),
        (np.zeros((3, 4, 4)), 0, "0 frames cannot be drawn"),
        (np.zeros((5, 4)), 4, r"depth x height x width, .* got shape \(5, 4\)"),
        (np.zeros((5, 0, 4)), 4, r"got shape \(5, 0, 4\)"),
        (np.zeros((5, 4, 4, 2)), 4, r"got shape \(5, 4, 4, 2\)"),
        (np.full((5, 4, 4), np.nan), 4, "NaN or infinite"),
    ],
)
def test_what_has_no_frames_is_refused(volume: Any, frames: int, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        evenly_spaced_frames(volume, frames)
