"""Boxes ``[x1, y1, x2, y2]`` in pixels, origin top left: how large they are, how far they agree.

And the lesions of a mask, which have boxes.
"""

import numpy as np
from scipy import ndimage

SPECK = 0.01
"""Of the area of a mask's largest lesion: what is smaller is a slip of hand or format."""


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """The areas of boxes n x 4, in square pixels: n; 0 where the edges are reversed."""
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1)


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairwise intersection over union of boxes n x 4 and m x 4: n x m, each from 0 to 1."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    union = box_areas(first)[:, None] + box_areas(second)[None, :] - both
    return both / np.maximum(union, 1e-9)


def lesions_of(pixels: np.ndarray) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """The 8-connected components of a mask from top to bottom, without specks (``SPECK``).

    Args:
        pixels: height x width, true inside lesions.

    Returns:
        Of each, its pixels in its tight box (height x width), and the box's corner (x, y).
    """
    numbers, _ = ndimage.label(pixels, structure=np.ones((3, 3)))
    areas = np.bincount(numbers.ravel())[1:]
    return [
        (numbers[window] == number, (window[1].start, window[0].start))
        for number, window in enumerate(ndimage.find_objects(numbers), start=1)
        if areas[number - 1] >= SPECK * areas.max()
    ]
