"""Scores of the two questions about hospital stays (MIMIC-IV): how long, and how it ends."""

import numpy as np
import pandas as pd

from qoq_lib.data.sources.multimodal import ENDINGS, STAYS
from qoq_lib.evaluation.metrics.resampling import Estimate, Weights, ratio


def stay_scores(table: pd.DataFrame, weights: Weights) -> dict[str, Estimate]:
    """Scores of a data set that asks for the length of a stay or for its ending; else empty.

    It is recognised by its options, ``STAYS`` or ``ENDINGS``. See ``length_scores`` and
    ``ending_scores``.
    """
    asked = {frozenset(options) for options in table["options"]}
    if asked == {frozenset(STAYS)}:
        return length_scores(table, weights)
    if asked == {frozenset(ENDINGS)}:
        return ending_scores(table, weights)
    return {}


def length_scores(table: pd.DataFrame, weights: Weights) -> dict[str, Estimate]:
    """``stay_bins_off`` (mean absolute error in bins) and ``stay_kappa`` (quadratic weights).

    An answer that is not exactly one bin counts as the bin farthest from the true one, so that
    saying nothing never pays. Kappa is Cohen's with squared distances (Cohen 1968); it is missing
    in resamples where truth and answers are one and the same bin throughout.
    """
    true = np.array([STAYS.index(answers[0]) for answers in table["answers"]])
    farthest = np.where(true < len(STAYS) / 2, len(STAYS) - 1, 0)
    said = np.array(
        [
            STAYS.index(labels[0]) if len(labels) == 1 else far
            for labels, far in zip(table["labels"], farthest, strict=True)
        ]
    )
    cells = np.eye(len(STAYS) ** 2)[true * len(STAYS) + said]
    seen = weights.sums(cells).reshape(-1, len(STAYS), len(STAYS))
    bins = np.arange(len(STAYS))
    cost = (bins[:, None] - bins[None, :]) ** 2
    expected = seen.sum(axis=2)[:, :, None] * seen.sum(axis=1)[:, None, :]
    off, chance = (seen * cost).sum(axis=(1, 2)), (expected * cost).sum(axis=(1, 2))
    kappa = 1 - ratio(off * seen.sum(axis=(1, 2)), chance)
    every = np.ones(len(table), bool)
    return {
        **weights.means(pd.DataFrame({"stay_bins_off": np.abs(true - said)})),
        "stay_kappa": weights.estimate(kappa, every),
    }


def ending_scores(table: pd.DataFrame, weights: Weights) -> dict[str, Estimate]:
    """``ending_f1``, ``ending_sensitivity`` and ``ending_specificity`` of a death or hospice.

    Balanced accuracy and AUROC stand among the scores of every data set.
    """
    died = np.array([ENDINGS[0] in answers for answers in table["answers"]])
    said = np.array([ENDINGS[0] in labels for labels in table["labels"]])
    lives = np.array([ENDINGS[1] in labels for labels in table["labels"]])
    sums = weights.sums(np.column_stack([died & said, died, said]).astype(float)).T
    every = np.ones(len(table), bool)
    right = {
        "ending_sensitivity": np.where(died, said, np.nan),
        "ending_specificity": np.where(died, np.nan, lives & ~said),
    }
    return {
        "ending_f1": weights.estimate(ratio(2 * sums[0], sums[1] + sums[2]), every),
        **weights.means(pd.DataFrame(right)),
    }
