"""Rewards of one completion: accuracy (set F1), region overlap (IoU), format and length.

Components lie in 0..1. The weights of ``paper`` are section 3.4 of arXiv 2506.00711; those of
``released`` are the constants of its public reward file. ``boxes`` is for a policy that has yet
to learn where lesions lie: most weight on IoU, and on the format little more than keeps a list of
all labels from paying, since a malformed box must not lose more than a good one earns, or the
policy stops drawing any. The components themselves differ from both sources on purpose: one answer
reader shared with evaluation, boxes matched one to one with lesions (the paper takes the best box,
the released code the mean), and nothing to gain from naming more labels than apply, from spraying
boxes or from white space.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from qoq_lib.answers import Answer, last_boxed, prose, read_answer
from qoq_lib.boxes import box_areas, box_iou, lesions_of
from qoq_lib.runs import OneSentenceError

FULL_LENGTH = 600  # characters from which the length component is 1, as in the released code

Row = Mapping[str, Any]
"""An assembled row, of which ``ROW_FIELDS`` are read.

``boxes`` and ``mask`` must be in the pixels of the image the model saw (``qoq_lib.model.pixels``).
``aliases`` is a mapping from other spellings to options (``qoq_lib.answers.read_answer``). The last
three may be missing.
"""

ROW_FIELDS = ("options", "answers", "boxes", "mask", "aliases")


class RewardError(OneSentenceError, ValueError):
    """A reward cannot be computed as asked; the message says why."""


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
    "boxes": RewardWeights(accuracy=0.05, iou=0.94, format=0.01, length=0.0),
}

COMPONENTS: dict[str, Callable[[str, Answer, Row], float]] = {
    "accuracy": lambda text, answer, row: set_f1(answer.labels, row["answers"]),
    "iou": lambda text, answer, row: matched_iou(lesion_overlap(answer.boxes, row)),
    "format": lambda text, answer, row: format_score(text, answer, row),
    "length": lambda text, answer, row: length_score(text),
}


def score(completion: str, row: Row, preset: str = "paper") -> dict[str, float]:
    """Components and their weighted sum ``"reward"`` for one completion.

    Args:
        completion: the model's text.
        row: see ``Row``. One without lesions cannot earn the IoU component (``attainable``).
        preset: a key of ``PRESETS``.

    Raises:
        RewardError: no such preset, or a mask that is not height x width.
    """
    answer = _read(completion, row)
    parts = {name: component(completion, answer, row) for name, component in COMPONENTS.items()}
    return parts | {"reward": _weighted(parts, preset)}


def attainable(row: Row, preset: str = "paper") -> float:
    """Reward of the perfect answer: the right labels, long enough, a tight box per lesion.

    This is the highest reward of a row with boxes, 1, and of a row without lesions, whose IoU
    component stays 0. Where a row has only a mask, its tight boxes do not fill ragged lesions, and
    a box drawn a little further inside may earn slightly more. Arguments and errors as for
    ``score``.
    """
    parts = dict.fromkeys(COMPONENTS, 1.0)
    parts["iou"] = matched_iou(lesion_overlap(_tight_boxes(row), row))
    return _weighted(parts, preset)


def set_f1(predicted: Sequence[str], true: Sequence[str]) -> float:
    """F1 of two label sets: 2 |both| / (|predicted| + |true|); 0 without a prediction."""
    total = len(set(predicted)) + len(set(true))
    return 2 * len(set(predicted) & set(true)) / total if total else 0.0


def matched_iou(overlap: np.ndarray) -> float:
    """Mean IoU under the best one-to-one matching, over max(boxes predicted, lesions).

    ``overlap`` is boxes x lesions. A missed lesion and a box too many each count as an overlap of
    zero, so covering the image with boxes cannot pay. Without boxes or without lesions: 0.
    """
    if not overlap.size:
        return 0.0
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return float(overlap[rows, columns].sum() / max(overlap.shape))


def lesion_overlap(predicted: Sequence[Sequence[float]], row: Row) -> np.ndarray:
    """IoU of each predicted box with each lesion of the row, boxes x lesions.

    Lesions are the row's boxes. Only a row without boxes is measured against its mask, lesion by
    lesion: assembled rows have the tight boxes of their masks, and a box can match those in full.
    """
    boxes = np.asarray(predicted, float).reshape(-1, 4)
    if _has_boxes(row):
        return box_iou(boxes, np.asarray(list(row["boxes"]), float))
    overlaps = [mask_iou(boxes, mask, corner) for mask, corner in lesions(row.get("mask"))]
    return np.stack(overlaps, axis=1) if overlaps else np.empty((len(boxes), 0))


def mask_iou(boxes: np.ndarray, lesion: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
    """IoU of boxes n x 4 with one lesion, n; exact also for boxes that cut through pixels.

    ``lesion`` is height x width, true inside, its top left pixel at ``corner`` (x, y) of the image.
    """
    columns = _coverage(boxes[:, 0], boxes[:, 2], corner[0], lesion.shape[1])
    rows = _coverage(boxes[:, 1], boxes[:, 3], corner[1], lesion.shape[0])
    both = ((rows @ lesion) * columns).sum(axis=1)
    return both / (box_areas(boxes) + lesion.sum() - both)


def lesions(mask: Any) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """The lesions of a mask, ``boxes.lesions_of``: each one's pixels in its box, and its corner.

    ``mask`` is an image or array of height x width, not 0 inside lesions, or ``None``.
    """
    if mask is None:
        return []
    pixels = np.asarray(mask)
    if pixels.ndim != 2:
        raise RewardError(
            f"A mask must be height x width, got the shape {pixels.shape}: give one channel."
        )
    return lesions_of(pixels > 0)


def format_score(text: str, answer: Answer, row: Row) -> float:
    """1 for an answer in the form that was asked for, else 0.

    It must be readable, end with its box and name no more labels than apply. If it lists regions,
    there must be at least one per label (the paper's rule), or one per lesion where the row has
    fewer lesions than labels. If it marks its reasoning, that must be closed before the answer.

    The labels are counted because F1 alone pays for naming many: of K options with one right, all
    of them score 2 / (K + 1) where a blind guess scores 1 / K on average. That gain is less than
    the weight of this component under every preset.
    """
    labels, regions = len(answer.labels), len(answer.boxes)
    counted = labels <= len(set(row["answers"]))
    located = not regions or regions >= min(labels, len(_tight_boxes(row)) or labels)
    ordered = _closes_reasoning(text) and _ends_with_box(text)
    return float(answer.valid and counted and located and ordered)


def length_score(text: str) -> float:
    """Characters over ``FULL_LENGTH``, at most 1; runs of white space and boxes do not count."""
    return min(len(prose(text)) / FULL_LENGTH, 1.0)


def reward_functions(preset: str) -> tuple[list[Callable[..., list[float]]], list[float]]:
    """The components as TRL reward functions, and their weights, for ``GRPOConfig``.

    TRL logs each function under its name and the trainer keeps it in the rollouts. A component of
    weight 0 is left out. The data set's columns among ``ROW_FIELDS`` make up each row.
    """
    weights = {name: weight for name, weight in _weights(preset).items() if weight}

    def make(name: str) -> Callable[..., list[float]]:
        def function(completions: list, **columns: Any) -> list[float]:
            given = {field: columns[field] for field in ROW_FIELDS if field in columns}
            rows = [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
            texts = [chat[0]["content"] for chat in completions]
            return [
                COMPONENTS[name](text, _read(text, row), row)
                for text, row in zip(texts, rows, strict=True)
            ]

        function.__name__ = name
        return function

    return [make(name) for name in weights], list(weights.values())


def _read(completion: str, row: Row) -> Answer:
    return read_answer(completion, row["options"], row.get("aliases"))


def _weights(preset: str) -> dict[str, float]:
    if preset not in PRESETS:
        raise RewardError(f"No reward preset {preset!r}: use one of {', '.join(PRESETS)}.")
    return asdict(PRESETS[preset])


def _weighted(parts: Mapping[str, float], preset: str) -> float:
    return sum(weight * parts[name] for name, weight in _weights(preset).items())


def _has_boxes(row: Row) -> bool:
    return row.get("boxes") is not None and len(row["boxes"]) > 0


def _tight_boxes(row: Row) -> list[Sequence[float]]:
    """One box per lesion, the row's own or around the components of its mask."""
    if _has_boxes(row):
        return list(row["boxes"])
    return [
        (x, y, x + lesion.shape[1], y + lesion.shape[0])
        for lesion, (x, y) in lesions(row.get("mask"))
    ]


def _closes_reasoning(text: str) -> bool:
    """Whether the text has no think tags, or one pair that ends before the final box."""
    before, closing, after = text.partition("</think>")
    if not closing:
        return "<think>" not in before
    once = before.count("<think>") == 1 and "<think>" not in after and "</think>" not in after
    return once and last_boxed(after) is not None


def _ends_with_box(text: str) -> bool:
    """Whether nothing follows the final box: else a policy that never stops loses nothing."""
    return text.rstrip(" \n.$").endswith(f"\\boxed{{{last_boxed(text)}}}")


def _coverage(low: np.ndarray, high: np.ndarray, start: int, count: int) -> np.ndarray:
    """The part of each of ``count`` pixels from ``start`` on that lies between low and high."""
    pixels = start + np.arange(count)
    inside = np.minimum(high[:, None], pixels + 1) - np.maximum(low[:, None], pixels)
    return np.clip(inside, 0, 1)
