"""Scores of label sets: per class, and averaged over the classes of a data set.

All are functions of sums over rows, which makes a thousand resamples a matrix product.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.preprocessing import MultiLabelBinarizer

from qoq_lib.evaluation.metrics.resampling import Estimate, Weights, ratio

FLOORS = ("constant", "invalid", "all_options")
"""Three answers that need no model: the best single label, nothing readable, every option."""


@dataclass(frozen=True)
class LabelSets:
    """The labels of a data set's rows as indicators, rows x classes."""

    classes: list[str]
    true: np.ndarray
    said: np.ndarray
    listed: np.ndarray

    @classmethod
    def of(cls, true: pd.Series, said: pd.Series, listed: pd.Series) -> "LabelSets":
        """From columns of label sets; the classes are all labels that occur in any of them."""
        columns = [[tuple(labels) for labels in sets] for sets in (true, said, listed)]
        binarizer = MultiLabelBinarizer().fit([labels for sets in columns for labels in sets])
        indicators = [binarizer.transform(sets).astype(float) for sets in columns]
        return cls(list(binarizer.classes_), *indicators)


@dataclass(frozen=True)
class Counts:
    """Weighted counts over resamples, resamples x classes: both true and said, true, said, rows."""

    hits: np.ndarray
    true: np.ndarray
    said: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, weights: Weights, true: np.ndarray, said: np.ndarray) -> "Counts":
        """Of indicators of rows x classes; ``said`` may hold a part of a hit."""
        rows = np.ones((len(true), 1))
        sums = weights.sums(np.hstack([true * said, true, said > 0, rows]))
        hits, wanted, given, total = np.split(sums, np.cumsum([true.shape[1]] * 3), axis=1)
        return cls(hits, wanted, given, total)

    @property
    def f1(self) -> np.ndarray:
        """NaN for a class that neither applies nor is named."""
        return ratio(2 * self.hits, self.true + self.said)

    @property
    def recall(self) -> np.ndarray:
        """NaN for a class that never applies."""
        return ratio(self.hits, self.true)

    @property
    def precision(self) -> np.ndarray:
        """0 for a class that is never named, as in the paper's code."""
        return np.nan_to_num(ratio(self.hits, self.said))

    @property
    def accuracy(self) -> np.ndarray:
        """Of the question "does this class apply?": mostly right by never naming anything."""
        return ratio(self.rows - self.true - self.said + 2 * self.hits, self.rows)

    @property
    def specificity(self) -> np.ndarray:
        """0 for a class that always applies, as in the paper's code."""
        others = self.rows - self.true
        return np.nan_to_num(ratio(others - self.said + self.hits, others))

    def macro(self, scores: np.ndarray) -> np.ndarray:
        """Unweighted mean over the classes that truly occur (the paper's rule)."""
        return _mean_where(scores, self.true > 0)


def label_scores(sets: LabelSets, weights: Weights) -> dict[str, np.ndarray]:
    """``macro_f1``, ``penalised_f1``, ``balanced_accuracy``, the floors, ``f1_above_floor``.

    ``penalised_f1`` is the macro-F1 over the option set with a price on naming too much: where t
    labels apply and p > t are named, each hit counts t / p only, and a class that is named but
    never applies counts as a class with F1 0. Answers of no more labels than apply lose nothing.
    With K balanced classes of one label each, naming all options then earns 2 / (K (K + 1)): just
    what a constant answer earns, where plain macro-F1 gives 2 / (K + 1). The rule is this
    package's own.

    ``f1_above_floor`` is macro-F1 minus the best floor of the same rows; below 0 is no skill.
    """
    counts = Counts.of(weights, sets.true, sets.said)
    excess = sets.true.sum(axis=1) / np.maximum(sets.said.sum(axis=1), 1)
    charged = Counts.of(weights, sets.true, sets.said * np.minimum(excess, 1)[:, None])
    macro_f1 = counts.macro(counts.f1)
    floors = f1_floors(sets, weights)
    return {
        "macro_f1": macro_f1,
        "penalised_f1": _mean_where(charged.f1, charged.true + charged.said > 0),
        "balanced_accuracy": counts.macro(counts.recall),
        "f1_above_floor": macro_f1 - np.maximum(floors["constant"], floors["all_options"]),
        **floors,
    }


def f1_floors(sets: LabelSets, weights: Weights) -> dict[str, np.ndarray]:
    """Macro-F1 of each of ``FLOORS``; the constant is the label that is best in the table as is."""
    every = Counts.of(weights, sets.true, sets.listed)
    occurring = (every.true > 0).sum(axis=1)
    constant = _of_best_label(ratio(2 * every.true, every.true + every.rows))
    return {
        "constant": ratio(constant, occurring),
        "invalid": np.where(occurring, 0.0, np.nan),
        "all_options": every.macro(np.nan_to_num(every.f1)),
    }


def paper_scores(sets: LabelSets, weights: Weights) -> dict[str, np.ndarray]:
    """The paper's measures, its F1's floors, and the same floors of its accuracy.

    Its "balanced accuracy" (equation 12) is the mean over classes of (TP + TN) / N: with K balanced
    classes an answer that is never readable gets 1 - 1 / K.
    """
    counts = Counts.of(weights, sets.true, sets.said)
    every = Counts.of(weights, sets.true, sets.listed)
    none = Counts.of(weights, sets.true, np.zeros_like(sets.true))
    occurring = (none.true > 0).sum(axis=1)
    # A constant answer moves one class from "never named" to "always named".
    gain = _of_best_label(ratio(none.true, none.rows) - none.accuracy)
    scores = {
        name: counts.macro(np.nan_to_num(getattr(counts, name)))
        for name in ("f1", "accuracy", "precision", "recall", "specificity")
    }
    floors = {
        "accuracy_constant": none.macro(none.accuracy) + ratio(gain, occurring),
        "accuracy_invalid": none.macro(none.accuracy),
        "accuracy_all_options": every.macro(every.accuracy),
    }
    return scores | f1_floors(sets, weights) | floors


def class_scores(sets: LabelSets, weights: Weights) -> dict[str, dict[str, Estimate]]:
    """``f1``, ``recall`` and ``precision`` of each class that truly occurs, with its true rows."""
    counts = Counts.of(weights, sets.true, sets.said)
    measures = {"f1": counts.f1, "recall": counts.recall, "precision": counts.precision}
    return {
        name: {
            measure: weights.estimate(values[:, number], sets.true[:, number] > 0)
            for measure, values in measures.items()
        }
        for number, name in enumerate(sets.classes)
        if sets.true[:, number].any()
    }


def _of_best_label(scores: np.ndarray) -> np.ndarray:
    """Over resamples, the score of the class that is best in the first; the mean where several are.

    Choosing anew in each resample would let the floor profit from chance.
    """
    best = np.isclose(scores[0], scores[0].max(), rtol=1e-12)
    return np.asarray(scores[:, best].mean(axis=1))


def _mean_where(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return ratio(np.where(chosen, scores, 0.0).sum(axis=1), chosen.sum(axis=1).astype(float))
