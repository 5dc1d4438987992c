"""What several readers of the same image agree on: more than half of them, each counted once."""

from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np

from qoq_lib.boxes import box_iou
from qoq_lib.data.sources.source import Box

SAME_PLACE = 0.5
"""Two readers' boxes show the same place from this intersection over union on."""


def by_majority(stated: Sequence[tuple[str, Iterable[str]]]) -> tuple[str, ...]:
    """The labels that more than half of the readers state, in order of first appearance.

    ``stated`` holds pairs of a reader and that reader's labels; a reader may come several times.
    """
    voters: dict[str, set[str]] = {}
    for reader, labels in stated:
        for label in labels:
            voters.setdefault(label, set()).add(reader)
    readers = len({reader for reader, _ in stated})
    return tuple(label for label, who in voters.items() if 2 * len(who) > readers)


def agreed_boxes(drawn: Sequence[tuple[str, Box]], readers: int) -> tuple[Box, ...]:
    """A box for each place that more than half of ``readers`` marked: the median of their edges.

    ``drawn`` holds pairs of a reader and a box. A box joins the first place whose first box it
    overlaps by at least ``SAME_PLACE``; what the finding is called plays no part.
    """
    places: list[list[tuple[str, Box]]] = []
    for reader, box in drawn:
        firsts = np.array([place[0][1] for place in places]).reshape(-1, 4)
        same = np.flatnonzero(box_iou(firsts, np.array([box])) >= SAME_PLACE)
        place = places[same[0]] if same.size else None
        if place is None:
            places.append(place := [])
        place.append((reader, box))
    agreed = [place for place in places if 2 * len({reader for reader, _ in place}) > readers]
    return tuple(_median_box([box for _, box in place]) for place in agreed)


def _median_box(boxes: Sequence[Box]) -> Box:
    x1, y1, x2, y2 = (median(edge) for edge in zip(*boxes, strict=True))
    return x1, y1, x2, y2
