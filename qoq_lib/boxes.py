"""Boxes ``[x1, y1, x2, y2]`` in pixels, origin top left: how large they are, how far they agree."""

import numpy as np


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
