"""Scores of option log-probabilities: AUROC and calibration.

A row's log-probabilities become one probability per option by a softmax over its options.
"""

import reprlib
from typing import Any

import numpy as np
import pandas as pd

from qoq_lib.evaluation.metrics.checking import PredictionsError, column
from qoq_lib.evaluation.metrics.resampling import Estimate, Weights, ratio

BINS = 10


def option_probabilities(table: pd.DataFrame) -> list[dict[str, float]]:
    """Probability of each option of each row; empty where ``option_logprobs`` is missing.

    Raises:
        PredictionsError: a row's log-probabilities are not one number per option, or none of them
            is finite.
    """
    found: list[dict[str, float]] = []
    given = zip(table["id"], table["options"], column(table, "option_logprobs"), strict=True)
    for name, options, logprobs in given:
        if logprobs is None:
            found.append({})
            continue
        numbers = _numbers(name, logprobs)
        if len(numbers) != len(options):
            raise PredictionsError(
                f"Row {name!r} has {len(numbers)} option_logprobs for {len(options)} options: "
                "give one each, in the order of the options."
            )
        odds = np.exp(numbers - numbers.max())
        found.append(dict(zip(options, (odds / odds.sum()).tolist(), strict=True)))
    return found


def _numbers(name: Any, logprobs: Any) -> np.ndarray:
    """Log-probabilities as an array: an option may be impossible, but not all, and none unknown."""
    try:
        numbers = np.asarray(logprobs, float)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    # The largest is finite where some are and none is NaN or infinitely likely.
    if numbers.ndim != 1 or (numbers.size and not np.isfinite(numbers.max())):
        raise PredictionsError(
            f"Row {name!r} has the option_logprobs {reprlib.repr(logprobs)}: give a list of "
            "numbers, at least one of them finite, or nothing where they are not known."
        )
    return numbers


def confidences(table: pd.DataFrame) -> pd.DataFrame:
    """``confidence`` (probability of the likeliest option) and ``hit`` (whether it applies).

    NaN in rows without log-probabilities; the index is the table's.
    """
    rows = []
    for options, answers in zip(option_probabilities(table), table["answers"], strict=True):
        best = max(options, key=lambda name: options[name]) if options else None
        rows.append((options[best], float(best in answers)) if best else (np.nan, np.nan))
    return pd.DataFrame(rows, columns=["confidence", "hit"], index=table.index)


def confidence_scores(table: pd.DataFrame, weights: Weights) -> dict[str, Estimate]:
    """``auroc`` and ``calibration_error`` of a data set; empty without log-probabilities.

    ``auroc`` is the unweighted mean over classes of one class against the rest, over those that
    apply to some rows and not to others. ``calibration_error`` is the expected calibration error
    of the likeliest option in ten bins of equal width (Guo et al., arXiv 1706.04599).
    """
    probabilities = option_probabilities(table)
    known = np.array([bool(options) for options in probabilities])
    if not known.any():
        return {}
    classes = sorted({name for options in probabilities for name in options})
    areas = [_class_auroc(name, probabilities, table["answers"], weights) for name in classes]
    scores = {"calibration_error": weights.estimate(_calibration_error(table, weights), known)}
    stacked = np.stack(areas)
    if np.isfinite(stacked[:, 0]).any():
        defined = np.isfinite(stacked)
        area = ratio(np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0))
        scores["auroc"] = weights.estimate(area, known)
    return scores


def _class_auroc(
    name: str, probabilities: list[dict[str, float]], answers: pd.Series, weights: Weights
) -> np.ndarray:
    """AUROC over resamples of one class, NaN where it applies to all rows or to none."""
    listed = np.array([name in options for options in probabilities])
    scores = np.array([options[name] for options in probabilities if name in options])
    applies = np.array([name in true for true in answers])[listed]
    return auroc(scores, applies, weights.of_rows(listed))


def auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted area under the ROC curve for each line of ``weights`` (resamples x rows).

    The probability that a positive row outranks a negative one, ties counted half (Mann-Whitney).
    """
    order = np.argsort(scores, kind="stable")
    steps = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    above = np.add.reduceat(weights[:, order] * positive[order], steps, axis=1)
    below = np.add.reduceat(weights[:, order] * ~positive[order], steps, axis=1)
    won = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
    return ratio(won, above.sum(axis=1) * below.sum(axis=1))


def _calibration_error(table: pd.DataFrame, weights: Weights) -> np.ndarray:
    told = confidences(table)
    gap = np.nan_to_num((told["confidence"] - told["hit"]).to_numpy())
    bins = np.minimum(np.floor(told["confidence"].fillna(-1) * BINS), BINS - 1)
    inside = bins.to_numpy()[:, None] == np.arange(BINS)
    known = told["confidence"].notna().to_numpy(float)
    sums = weights.sums(np.column_stack([inside * gap[:, None], known]))
    return ratio(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1])
