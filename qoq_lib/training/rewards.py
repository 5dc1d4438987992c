"""Rewards of one completion: accuracy (set F1), region overlap (IoU), format and length.

Components lie in 0..1. The weights of ``paper`` are section 3.4 of arXiv 2506.00711; those of
``released`` are the constants of its public reward file. Differences to that file are deliberate:
one shared answer reader, one-to-one matching of boxes, and no credit for spraying either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from qoq_lib.answers import Answer, read_answer

FULL_LENGTH = 600  # characters from which the length component is 1, as in the released code


@dataclass(frozen=True)
class RewardWeights:
    """Weights of the components; they sum to one."""

    accuracy: float
    iou: float
    format: float
    length: float


PRESETS: dict[str, RewardWeights] = {
    "paper": RewardWeights(accuracy=0.6, iou=0.2, format=0.2, length=0.0),
    "released": RewardWeights(accuracy=0.5, iou=0.3, format=0.1, length=0.1),
}


def score(completion: str, row: Mapping[str, Any], preset: str = "paper") -> dict[str, float]:
    """Components and their weighted sum ``"reward"`` for one completion.

    Args:
        completion: the model's text.
        row: an assembled row; ``options``, ``answers`` and ``boxes`` are read. Boxes must be in the
            pixels of the image the model saw (``qoq_lib.model.pixels``).
        preset: a key of ``PRESETS``.
    """
    answer = read_answer(completion, row["options"])
    boxes = [] if row.get("boxes") is None else list(row["boxes"])  # an array in a parquet table
    components = {
        "accuracy": set_f1(answer.labels, row["answers"]),
        "iou": matched_iou(answer.boxes, boxes),
        "format": format_score(answer),
        "length": min(len(completion) / FULL_LENGTH, 1.0),
    }
    weights = asdict(PRESETS[preset])
    return components | {"reward": sum(weights[name] * components[name] for name in weights)}


def set_f1(predicted: Sequence[str], true: Sequence[str]) -> float:
    """F1 of two label sets: 2 |both| / (|predicted| + |true|); 0 without a prediction."""
    total = len(set(predicted)) + len(set(true))
    return 2 * len(set(predicted) & set(true)) / total if total else 0.0


def matched_iou(predicted: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> float:
    """Mean IoU under the best one-to-one matching, over max(boxes predicted, boxes true).

    A missed lesion and a box too many each count as an overlap of zero, so covering the image with
    boxes cannot pay. Rows without lesions give 0.
    """
    if not len(predicted) or not len(true):
        return 0.0
    overlap = box_iou(np.asarray(predicted, float), np.asarray(true, float))
    rows, columns = linear_sum_assignment(-overlap)
    return float(overlap[rows, columns].sum() / max(overlap.shape))


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairwise IoU of boxes n x 4 and m x 4 ``[x1, y1, x2, y2]``, as n x m."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    area = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1) for boxes in (first, second)]
    union = area[0][:, None] + area[1][None, :] - both
    return both / np.maximum(union, 1e-9)


def format_score(answer: Answer) -> float:
    """1 for a readable answer whose regions, if it lists any, are one per label or more."""
    return float(answer.valid and (not answer.boxes or len(answer.boxes) >= len(answer.labels)))


def reward_functions(preset: str) -> tuple[list[Callable[..., list[float]]], list[float]]:
    """The components as TRL reward functions, and their weights, for ``GRPOConfig``."""
    weights = {name: weight for name, weight in asdict(PRESETS[preset]).items() if weight}

    def make(name: str) -> Callable[..., list[float]]:
        def function(completions: list, options: list, answers: list, boxes: list, **_: Any) -> Any:
            rows = zip(completions, options, answers, boxes, strict=True)
            return [
                score(chat[0]["content"], {"options": o, "answers": a, "boxes": b}, preset)[name]
                for chat, o, a, b in rows
            ]

        function.__name__ = name
        return function

    return [make(name) for name in weights], list(weights.values())
