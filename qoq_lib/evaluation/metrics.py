"""Scores of predictions: per class, then data set, then domain, then overall, unweighted.

The nesting is the paper's (appendix C); beside it stand the figures its tables lack: mean-recall
balanced accuracy, exact match, the share of invalid answers, and the three trivial floors (one
constant answer, never a valid answer, every option listed) that any model has to beat.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from qoq_lib.answers import read_answer
from qoq_lib.domains import domain_order
from qoq_lib.runs import OneSentenceError

MEASURES = ("macro_f1", "balanced_accuracy", "exact_match", "invalid_rate")
FLOORS = ("constant", "invalid", "all_options")

Labels = list[tuple[str, ...]]


class PredictionsError(OneSentenceError, ValueError):
    """The predictions table cannot be scored; the message says why."""


def evaluate(predictions: pd.DataFrame) -> dict[str, Any]:
    """Score a predictions table.

    Args:
        predictions: one row per question with ``id, domain, dataset, patient_id, options, answers,
            completion``.

    Returns:
        ``{"overall": scores, "domains": {name: scores | {"datasets": {name: scores}}}}``; scores
        hold ``n``, ``MEASURES`` and ``floors`` (macro-F1 of each of ``FLOORS``).

    Raises:
        PredictionsError: a column is missing, or the table is empty.
    """
    needed = ("id", "domain", "dataset", "patient_id", "options", "answers", "completion")
    missing = [name for name in needed if name not in predictions.columns]
    if missing:
        raise PredictionsError(f"The predictions lack the column {missing[0]!r}.")
    if predictions.empty:
        raise PredictionsError("There are no predictions to score: the table has no rows.")
    domains = {}
    for name in domain_order(sorted(predictions["domain"].unique())):
        rows = predictions[predictions["domain"] == name]
        sets = {key: score_dataset(part) for key, part in rows.groupby("dataset")}
        domains[name] = _mean(list(sets.values())) | {"datasets": sets}
    return {"overall": _mean(list(domains.values())), "domains": domains}


def score_dataset(rows: pd.DataFrame) -> dict[str, Any]:
    """Scores of one data set; see ``evaluate``."""
    true = [tuple(labels) for labels in rows["answers"]]
    options = [tuple(labels) for labels in rows["options"]]
    read = [
        read_answer(text, labels) for text, labels in zip(rows["completion"], options, strict=True)
    ]
    predicted = [answer.labels for answer in read]
    f1, recall = _f1_and_recall(true, predicted)
    exact = [set(a) == set(b) for a, b in zip(true, predicted, strict=True)]
    return {
        "n": len(rows),
        "macro_f1": f1,
        "balanced_accuracy": recall,
        "exact_match": float(np.mean(exact)),
        "invalid_rate": float(np.mean([not answer.valid for answer in read])),
        "floors": {
            "constant": max(
                _f1_and_recall(true, [(label,)] * len(true))[0]
                for label in sorted({label for labels in true for label in labels})
            ),
            "invalid": 0.0,
            "all_options": _f1_and_recall(true, options)[0],
        },
    }


def _f1_and_recall(true: Labels, predicted: Labels) -> tuple[float, float]:
    """Unweighted means over the labels that occur in ``true`` (the paper's rule)."""
    # A column more than labels: a single one would be read as a binary target.
    binarizer = MultiLabelBinarizer().fit([*true, *predicted, ("",)])
    truth, guess = binarizer.transform(true), binarizer.transform(predicted)
    occurs = np.flatnonzero(truth.sum(axis=0))
    _, recall, f1, _ = precision_recall_fscore_support(
        truth, guess, labels=occurs, average="macro", zero_division=0
    )
    return float(f1), float(recall)


def _mean(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Unweighted mean of the measures and floors of several scores; ``n`` adds up."""
    return {
        "n": sum(part["n"] for part in parts),
        **{name: float(np.mean([part[name] for part in parts])) for name in MEASURES},
        "floors": {
            name: float(np.mean([part["floors"][name] for part in parts])) for name in FLOORS
        },
    }
