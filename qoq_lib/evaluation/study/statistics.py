"""Intervals of paired comparisons: each arm and its baseline share seeds, questions and patients.

Two kinds of 95 % interval answer two questions. The t interval over seeds takes each seed's
difference as one observation. The hierarchical bootstrap draws seeds and, inside each, patients, so
that it also holds the chance of whom the test split shows; with few seeds it is too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from qoq_lib.evaluation.metrics import answered

LEVEL = 0.95
DRAWS = 1000
Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its 95 % interval, NaN where there is none; ``n`` observations."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Values) -> Interval:
    """Mean and Student's t interval of independent values; one value has no interval."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        return Interval(float(values.mean()) if n else np.nan, np.nan, np.nan, n)
    half = _t(n) * values.std(ddof=1) / np.sqrt(n)
    return Interval(values.mean(), values.mean() - half, values.mean() + half, n)


def ratio_interval(above: Values, below: Values) -> Interval:
    """Ratio of the means of paired values, with Fieller's interval.

    The interval is the set of ratios r for which the mean of ``above - r * below`` is not
    significantly different from zero (E. C. Fieller, J. R. Stat. Soc. B 16, 1954). It has no end
    where the mean of ``below`` itself is not significantly different from zero: NaN then.
    """
    a, b = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    n, mean_a, mean_b = len(a), np.mean(a), np.mean(b)
    ratio = float(mean_a / mean_b) if mean_b else np.nan
    if n < 2:
        return Interval(ratio, np.nan, np.nan, n)
    t2 = _t(n) ** 2
    cov = np.cov(a, b, ddof=1) / n
    square = mean_b**2 - t2 * cov[1, 1]
    half = mean_a * mean_b - t2 * cov[0, 1]
    constant = mean_a**2 - t2 * cov[0, 0]
    if square <= 0:
        return Interval(ratio, np.nan, np.nan, n)
    root = np.sqrt(max(half**2 - square * constant, 0.0))
    return Interval(ratio, (half - root) / square, (half + root) / square, n)


@cache
def _t(n: int) -> float:
    """The quantile of Student's distribution for the mean of ``n`` values."""
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1))


def redrawn(splits: Sequence[pd.DataFrame], draws: int, seed: int) -> dict[str, pd.DataFrame]:
    """How often each patient of ``splits`` is drawn: by data set, patients x draws.

    Patients are drawn with replacement inside each data set, so that no domain is ever empty.
    """
    rng = np.random.default_rng(seed)
    patients = pd.concat([split[["dataset", "patient_id"]] for split in splits])
    found = {}
    for dataset, rows in patients.drop_duplicates().groupby("dataset", sort=True):
        names = sorted(rows["patient_id"])
        chances = np.full(len(names), 1 / len(names))
        times = rng.multinomial(len(names), chances, size=draws)
        found[str(dataset)] = pd.DataFrame(times.T.astype(float), index=names)
    return found


class PatientDraws:
    """Macro-F1 of several arms on one test split, under shared redraws of its patients.

    Args:
        predictions: of each arm, on the same questions.
        times: how often each patient is drawn, as ``redrawn``.
    """

    def __init__(
        self, predictions: Mapping[str, pd.DataFrame], times: Mapping[str, pd.DataFrame]
    ) -> None:
        self._times = times
        self._tables = {name: answered(table) for name, table in predictions.items()}

    def macro_f1(self, arm: str) -> dict[str, np.ndarray]:
        """Draws of macro-F1 by domain and ``overall``, means unweighted as in ``metrics``.

        Domains that ask for no label are left out; none may be left.
        """
        by_domain: dict[str, list[np.ndarray]] = {}
        for (domain, dataset), rows in self._tables[arm].groupby(["domain", "dataset"], sort=True):
            if not asks_for_a_label(rows):
                continue
            weights = self._times[dataset].loc[rows["patient_id"]].to_numpy().T
            by_domain.setdefault(domain, []).append(weighted_macro_f1(rows, weights))
        scores = {domain: np.mean(parts, axis=0) for domain, parts in by_domain.items()}
        return scores | ({"overall": np.mean(list(scores.values()), axis=0)} if scores else {})


def asks_for_a_label(rows: pd.DataFrame) -> bool:
    """Not where only one can be named, the rule of ``metrics``: then only the place is asked."""
    return bool(rows["options"].map(len).gt(1).any())


def weighted_macro_f1(rows: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    """Macro-F1 of one data set under ``weights``, draws x rows, as ``metrics`` defines it.

    Classes are those that occur among the true answers of a draw; NaN where a draw is empty.
    ``rows`` as ``metrics.answered``.
    """
    names = sorted({label for labels in rows["answers"] for label in labels})
    true = np.array([[name in set(labels) for name in names] for labels in rows["answers"]], float)
    said = np.array([[name in set(labels) for name in names] for labels in rows["labels"]], float)
    hits, positives = weights @ (true * said), weights @ true
    f1 = 2 * hits / np.maximum(positives + weights @ said, 1e-12)
    occurs = positives > 0
    with np.errstate(invalid="ignore"):
        return (f1 * occurs).sum(axis=1) / occurs.sum(axis=1)


def over_seeds(
    differences: Sequence[np.ndarray], seed: int, *, same_patients: bool = False
) -> tuple[float, float]:
    """Ends of the hierarchical bootstrap's interval: seeds are drawn, then patients within.

    ``differences`` holds a vector of patient draws per seed; each drawn seed, a repeated one too,
    gets a patient draw of its own. Where all seeds show the ``same_patients``, one draw of them
    holds for all; one that leaves a seed without any patient of a data set does not count.
    """
    table = np.stack(differences)
    seeds, draws = table.shape
    if seeds < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    chosen = rng.integers(seeds, size=(draws, seeds))
    patients = rng.integers(draws, size=(draws, 1) if same_patients else chosen.shape)
    means = table[chosen, patients].mean(axis=1)
    low, high = np.nanquantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
