"""The floor of IoU: one box per domain, the same for every patient."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from qoq_lib.training.rewards import lesion_overlap, matched_iou


def constant_box_iou(train: Dataset, rows: Dataset) -> dict[str, float]:
    """By domain, the IoU with the lesions of ``rows`` of the median box of ``train``.

    Each side of the box is the median over the largest lesion of every training row. Sides are
    taken as parts of the image's, which leaves the IoU as it is. Domains without boxes are missing.
    """
    largest, overlaps = defaultdict(list), defaultdict(list)
    for domain, boxes in _boxes(train):
        largest[domain].append(boxes[np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))])
    medians = {domain: np.median(boxes, axis=0) for domain, boxes in largest.items()}
    for domain, boxes in _boxes(rows):
        if domain in medians:
            row: Mapping[str, Any] = {"boxes": boxes}
            overlaps[domain].append(matched_iou(lesion_overlap([medians[domain]], row)))
    return {domain: float(np.mean(values)) for domain, values in overlaps.items()}


def _boxes(rows: Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """Domain and boxes (n x 4, parts of the image's sides) of every row with lesions."""
    for row in rows.select_columns(["domain", "boxes", "images"]):
        if row["boxes"]:
            yield row["domain"], np.asarray(row["boxes"]) / np.tile(row["images"][0].size, 2)
