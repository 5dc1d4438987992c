"""What each completion says, and what can be told of a row by itself."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from qoq_lib.answers import Box, read_answer
from qoq_lib.boxes import lesions_of
from qoq_lib.evaluation.metrics.checking import PredictionsError, check_predictions, column
from qoq_lib.training.rewards import lesion_overlap, matched_iou

ROW_MEASURES = (
    *("exact_match", "jaccard", "invalid_rate", "characters", "tokens"),
    *("box_iou", "mask_iou", "pointing"),
)
"""Measures that are means over rows, in the columns that ``answered`` adds."""


def answered(predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions, with what each completion says and how right it is.

    Args:
        predictions: a row per question with the columns ``checking.NEEDED``, and where known
            ``boxes`` (the true ones, n x 4) and ``mask`` (PNG bytes), both in the pixels that the
            completions' boxes are in, and ``n_tokens``.

    Returns:
        With the columns ``labels`` (tuple of options), ``regions`` (tuple of boxes) and
        ``ROW_MEASURES``, NaN where a row cannot tell: the last three are NaN in rows without
        lesions. ``exact_match`` is 1 where the final box holds the true labels and nothing else.
        ``box_iou`` and ``mask_iou`` are the rewards' ``matched_iou`` with the true boxes and with
        the lesions of the mask. ``pointing`` is 1 where the middle of the first box named lies in a
        lesion (the pointing game of Zhang et al., arXiv 1608.00507).

    Raises:
        PredictionsError: a column is missing, the table is empty, or a row cannot be scored
            (``check_predictions``).
    """
    check_predictions(predictions)
    read = [
        read_answer(text, list(options))
        for text, options in zip(predictions["completion"], predictions["options"], strict=True)
    ]
    table = predictions.assign(
        labels=[answer.labels for answer in read],
        regions=[answer.boxes for answer in read],
        invalid_rate=[float(not answer.valid) for answer in read],
        characters=[float(len(text)) for text in predictions["completion"]],
        tokens=column(predictions, "n_tokens").astype(float),
    )
    pairs = [
        (set(said), set(true)) for said, true in zip(table["labels"], table["answers"], strict=True)
    ]
    table["exact_match"] = [
        float(said == true and not answer.unread)
        for (said, true), answer in zip(pairs, read, strict=True)
    ]
    table["jaccard"] = [len(said & true) / max(len(said | true), 1) for said, true in pairs]
    masks = (_pixels(*one) for one in zip(table["id"], column(table, "mask"), strict=True))
    places = zip(table["regions"], column(table, "boxes"), masks, strict=True)
    overlaps = [_located(*place) for place in places]
    table[["box_iou", "mask_iou", "pointing"]] = np.array(overlaps, float)
    return table


def asks_for_a_label(rows: pd.DataFrame) -> bool:
    """Not where only one can be named: then the question is where it lies (grounding)."""
    return bool(rows["options"].map(len).gt(1).any())


def _located(
    regions: Sequence[Box], boxes: Any, pixels: np.ndarray | None
) -> tuple[float, float, float]:
    """Box IoU, mask IoU and pointing of one row; NaN without the truth that each needs."""
    true = [] if boxes is None else [list(map(float, box)) for box in boxes]
    by_box = matched_iou(lesion_overlap(regions, {"boxes": true})) if true else np.nan
    has_mask = pixels is not None and bool(pixels.any())
    by_mask = matched_iou(lesion_overlap(regions, {"mask": pixels})) if has_mask else np.nan
    return by_box, by_mask, _points(regions, true, pixels if has_mask else None)


def _points(
    regions: Sequence[Box], true: Sequence[Sequence[float]], pixels: np.ndarray | None
) -> float:
    if not true and pixels is None:
        return np.nan
    if not regions:
        return 0.0
    x1, y1, x2, y2 = regions[0]
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    if pixels is None:
        return float(any(box[0] <= x < box[2] and box[1] <= y < box[3] for box in true))
    return float(
        any(
            0 <= y - top < lesion.shape[0]
            and 0 <= x - left < lesion.shape[1]
            and lesion[int(y) - top, int(x) - left]
            for lesion, (left, top) in lesions_of(pixels)
        )
    )


def _pixels(key: Any, mask: Any) -> np.ndarray | None:
    """Where the mask of the row ``key`` marks a lesion: height x width."""
    if mask is None:
        return None
    try:
        with Image.open(io.BytesIO(mask)) as image:
            return np.asarray(image.convert("L")) > 0
    except (OSError, TypeError, ValueError) as error:
        raise PredictionsError(
            f"Row {key!r} has a mask that is no image: give the bytes of a PNG, or nothing where "
            "it is not known."
        ) from error
