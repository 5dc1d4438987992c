"""Intervals by resampling patients: rows of one patient are no independent evidence.

A *score over resamples* is an array whose first entry belongs to the table as it is and whose
others belong to tables of as many patients, drawn with replacement (percentile bootstrap, Efron
and Tibshirani 1993, chapter 13). They are drawn within each data set, whose number of patients is
therefore that of the table: no domain is missing from a resample, however few patients it has.
Patients are drawn once per table, so that scores of its parts, and of another model on the same
patients, go up and down together.

Resamples miss rows, and a macro-F1 over few rows a class suffers from that: their mean is off the
score itself (its bias, chapter 10 there). They are shifted by that much before their percentiles
are taken, and no bound lies beyond what any resample reached.

By simulation such intervals hold the true score about as often as they claim from 50 patients on
(``tests/test_metrics_beside.py``), and less often with 10 to 25, least where a class has one or two
of them. Resamples know no answer that the table does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from qoq_lib.evaluation.metrics.checking import PredictionsError

MIN_PATIENTS = 10
"""Scores that rest on fewer patients have no interval: resamples of so few tell nothing."""

LEVEL = (2.5, 97.5)


class Resampling:
    """How often each patient occurs in each resample; the first row counts everyone once.

    Patients of several data sets are drawn among those of the same ones; who is alone in that is
    in every resample once.

    Args:
        table: rows with ``patient_id, domain, dataset``.
        resamples: how many.
        seed: of the draws.
    """

    def __init__(self, table: pd.DataFrame, resamples: int, seed: int) -> None:
        rng, strata = np.random.default_rng(seed), _strata(table)
        self.patients = strata.index
        self.counts = np.ones((1 + resamples, len(strata)), np.uint16)
        for stratum in np.unique(strata):
            places = np.flatnonzero(strata == stratum)
            alike = np.full(len(places), 1 / len(places))
            for row in range(1, 1 + resamples):  # one by one: in 64 bits all are four times it
                self.counts[row, places] = rng.multinomial(len(places), alike)

    def weights(self, patients: pd.Series) -> "Weights":
        """The weights of rows of these patients.

        Raises:
            PredictionsError: one of them is missing, or is not in the table.
        """
        places = self.patients.get_indexer(patients)
        if (places < 0).any():
            raise PredictionsError(
                f"The patient_id {patients[places < 0].iloc[0]!r} is none of the patients that are "
                "resampled: give every row its patient_id, the same in tables that are compared."
            )
        numbers, codes = np.unique(places, return_inverse=True)
        return Weights(self.counts[:, numbers].astype(float), codes, numbers)


def _strata(table: pd.DataFrame) -> pd.Series:
    """The data sets of each patient as one text, indexed by the sorted patients."""
    sets = table["domain"] + "/" + table["dataset"]
    return sets.groupby(table["patient_id"]).agg(lambda own: " ".join(sorted(set(own))))


class Weights:
    """How often each row counts in each resample (as often as its patient)."""

    def __init__(self, counts: np.ndarray, codes: np.ndarray, numbers: np.ndarray) -> None:
        self._counts, self._codes, self._numbers = counts, codes, numbers
        rows = np.arange(len(codes))
        shape = len(numbers), len(rows)
        self._owners = sparse.csr_array((np.ones(len(rows)), (codes, rows)), shape=shape)

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """Weighted sums of rows x columns, as resamples x columns."""
        return np.asarray(self._counts @ (self._owners @ columns))

    def means(self, values: pd.DataFrame) -> "dict[str, Estimate]":
        """Weighted mean of each column that is known in any row; rows with NaN are left out."""
        told = values.loc[:, values.notna().any()].astype(float)
        known = told.notna().to_numpy()
        sums = self.sums(np.hstack([told.fillna(0.0).to_numpy(), known]))
        total, count = np.hsplit(sums, 2)
        return {
            str(name): self.estimate(ratio(total[:, place], count[:, place]), known[:, place])
            for place, name in enumerate(told.columns)
        }

    def estimate(self, values: np.ndarray, rows: np.ndarray) -> "Estimate":
        """A score over resamples that rests on the rows for which ``rows`` is true."""
        patients = frozenset(self._numbers[np.unique(self._codes[rows])].tolist())
        return Estimate(values, int(rows.sum()), patients)

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Resamples x the chosen rows: how often each counts."""
        return self._counts[:, self._codes[rows]]


@dataclass(frozen=True)
class Estimate:
    """A score over resamples, NaN where undefined, with the rows and patients that it rests on.

    ``paired`` is whether it is a difference of two scores of the same patients.
    """

    values: np.ndarray
    n: int
    patients: frozenset[int]
    paired: bool = False

    @property
    def value(self) -> float:
        """The score of the table as it is."""
        return float(self.values[0])

    @property
    def interval(self) -> list[float] | None:
        """The 95 % interval, ``None`` without resamples or with fewer than ``MIN_PATIENTS``.

        Also where all resamples agree: of ten right answers they are all right, and yet another
        patient's may be wrong. Only of two models that do not differ it is known: [0, 0].
        """
        drawn = self.values[1:][np.isfinite(self.values[1:])]
        if not len(drawn) or len(self.patients) < MIN_PATIENTS:
            return None
        if np.allclose(drawn, self.value):
            return [0.0, 0.0] if self.paired and self.value == 0 else None
        bounds = np.percentile(drawn, LEVEL) + self.value - drawn.mean()
        reached = np.append(drawn, self.value)
        return [float(bound) for bound in np.clip(bounds, reached.min(), reached.max())]

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference, resample by resample, on the rows of the smaller."""
        paired, patients = self.patients == other.patients, self.patients | other.patients
        return Estimate(self.values - other.values, min(self.n, other.n), patients, paired)


def mean_of(parts: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of scores over the same resamples; undefined ones are left out."""
    values = np.stack([part.values for part in parts])
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    patients = frozenset[int]().union(*(part.patients for part in parts))
    mean, n = ratio(total, known.sum(axis=0)), sum(part.n for part in parts)
    return Estimate(mean, n, patients, all(part.paired for part in parts))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """``above / below``, NaN where ``below`` is 0."""
    empty = np.full(np.broadcast_shapes(np.shape(above), np.shape(below)), np.nan)
    return np.divide(above, below, out=empty, where=below != 0)
