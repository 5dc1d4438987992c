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
from qoq_lib.evaluation.metrics.labels import LabelSets, label_scores
from qoq_lib.evaluation.metrics.reading import asks_for_a_label
from qoq_lib.evaluation.metrics.resampling import Weights

LEVEL = 0.95
DRAWS = 1000
_ROW_MEASURES = ("exact_match", "invalid_rate", "box_iou", "pointing")
_LABEL_MEASURES = ("macro_f1", "penalised_f1", "balanced_accuracy", "all_options")
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
    """Scores of several arms on one test split, under shared redraws of its patients.

    Args:
        predictions: of each arm, on the same questions.
        times: how often each patient is drawn, as ``redrawn``.
    """

    def __init__(
        self, predictions: Mapping[str, pd.DataFrame], times: Mapping[str, pd.DataFrame]
    ) -> None:
        self._times = times
        self._tables = {name: answered(table) for name, table in predictions.items()}

    def scores(self, arm: str) -> dict[str, dict[str, np.ndarray]]:
        """Draws by measure (``dataset_scores``), and by domain and ``overall`` that have it.

        Means over data sets and domains are unweighted, as in ``metrics``.
        """
        parts: dict[str, dict[str, list[np.ndarray]]] = {}
        for (domain, dataset), rows in self._tables[arm].groupby(["domain", "dataset"], sort=True):
            for measure, draws in dataset_scores(rows, self._times[dataset]).items():
                parts.setdefault(measure, {}).setdefault(domain, []).append(draws)
        return {measure: _with_overall(domains) for measure, domains in parts.items()}


def _with_overall(parts: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    scores = {domain: np.mean(draws, axis=0) for domain, draws in parts.items()}
    return scores | {"overall": np.mean(list(scores.values()), axis=0)}


def dataset_scores(rows: pd.DataFrame, times: pd.DataFrame) -> dict[str, np.ndarray]:
    """Draws of each measure of one data set, as ``metrics`` defines it; NaN where a draw is empty.

    ``rows`` as ``metrics.answered``; ``times``, patients x draws, says how often each is drawn.
    The measures of labels, and ``all_options``, the macro-F1 of listing every option, are left out
    where no question asks for a label.
    """
    places = times.index.get_indexer(rows["patient_id"])
    weights = Weights(times.to_numpy().T, places, np.arange(len(times)))
    means = weights.means(rows[list(_ROW_MEASURES)])
    scores = {name: estimate.values for name, estimate in means.items()}
    if not asks_for_a_label(rows):
        return scores
    labels = label_scores(LabelSets.of(rows["answers"], rows["labels"], rows["options"]), weights)
    return scores | {name: labels[name] for name in _LABEL_MEASURES}


def drawn_means(draws: Sequence[np.ndarray], seed: int, *, same_patients: bool) -> np.ndarray:
    """Means over seeds of the hierarchical bootstrap: seeds are drawn, then patients within.

    ``draws`` holds a vector of patient draws per seed; each drawn seed, a repeated one too, gets a
    patient draw of its own. Where all seeds show the ``same_patients``, one draw of them holds for
    all. Calls with one ``seed`` choose alike, so that their results can be paired. One seed alone
    has no means: NaN.
    """
    table = np.stack(draws)
    seeds, count = table.shape
    if seeds < 2:
        return np.full(count, np.nan)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(seeds, size=(count, seeds))
    patients = rng.integers(count, size=(count, 1) if same_patients else chosen.shape)
    return np.asarray(table[chosen, patients].mean(axis=1))


def ends(values: np.ndarray) -> tuple[float, float]:
    """Ends of the percentile interval of draws; those that are not finite do not count.

    A draw is NaN that leaves a seed without any patient of a data set.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
