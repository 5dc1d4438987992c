"""``evaluate`` and ``compare``: the tree of scores, as plain numbers for JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from qoq_lib.domains import domain_order
from qoq_lib.evaluation.metrics.checking import PredictionsError, column
from qoq_lib.evaluation.metrics.confidence import confidence_scores
from qoq_lib.evaluation.metrics.labels import (
    FLOORS,
    LabelSets,
    class_scores,
    label_scores,
    paper_scores,
)
from qoq_lib.evaluation.metrics.paper import paper_sets
from qoq_lib.evaluation.metrics.reading import ROW_MEASURES, answered, asks_for_a_label
from qoq_lib.evaluation.metrics.resampling import (
    MIN_PATIENTS,
    Estimate,
    Resampling,
    Weights,
    mean_of,
)
from qoq_lib.evaluation.metrics.stays import stay_scores
from qoq_lib.evaluation.metrics.subgroups import subgroups

MEASURES = (
    *("macro_f1", "penalised_f1", "f1_above_floor", "balanced_accuracy"),
    *("exact_match", "jaccard", "invalid_rate", "characters"),
)
"""Measures of every result; the others are left out where the rows cannot tell them."""

PAPER_MEASURES = ("f1", "accuracy", "precision", "recall", "specificity")

Estimates = dict[str, Estimate]


@dataclass(frozen=True)
class Node:
    """Scores of a group of rows, and of the groups that it consists of."""

    estimates: Estimates
    n: int
    patients: int
    parts: dict[str, "Node"] = field(default_factory=dict)
    classes: dict[str, Estimates] = field(default_factory=dict)


def evaluate(
    predictions: pd.DataFrame, *, paper: bool = False, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Score a predictions table.

    Args:
        predictions: one row per question with ``id, domain, dataset, patient_id, options, answers,
            completion``, and where known ``boxes``, ``mask`` and ``n_tokens`` (see ``answered``),
            ``option_logprobs`` (one per option, in their order), ``sex`` and ``age_years``.
        paper: whether answers are read and scored by the paper's own rules (``paper``,
            ``labels.paper_scores``): ``PAPER_MEASURES`` in place of ``MEASURES``.
        resamples: of patients, for the intervals; 0 for none.
        seed: of the resamples.

    Returns:
        ``{"overall": scores, "domains": {name: scores | {"datasets": {name: scores | {"classes":
        {label: scores}}}}}, "subgroups": {"sex" | "age": ...}}``. Scores hold ``n`` (rows) and
        ``patients`` of the part, each measure as a number, ``floors`` (macro-F1 of each of
        ``FLOORS``), ``intervals`` ([low, high] or ``None`` for each), ``rows`` and ``patients_of``
        (how many each rests on) and ``too_few`` (the names of those that rest on fewer than
        ``MIN_PATIENTS``, and so have no interval). A measure is a mean over classes,
        then data sets, then domains, unweighted; one that the rows cannot tell is missing, such as
        those of labels where only one is listed and the question is where it lies (grounding).
        ``subgroups.subgroups`` tells their form.

    Raises:
        PredictionsError: a column is missing, the table is empty, or a row cannot be scored.
        ValueError: a domain is unknown.
    """
    table, resampling = answered(predictions), Resampling(predictions, resamples, seed)
    score = _paper_scores if paper else _scores
    scores = _plain_tree(_tree(table, resampling, score))
    if not paper:
        scores["subgroups"] = subgroups(table, lambda rows: _tree(rows, resampling, score), _plain)
    return scores


def compare(
    before: pd.DataFrame, after: pd.DataFrame, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """What ``after`` gains over ``before`` on the same questions: paired differences.

    Arguments and result as for ``evaluate``, but each number is ``after`` minus ``before``, its
    interval from the same resamples of patients in both, and there are no classes or subgroups.
    Differences are taken over the rows, and in the data sets, that both have the measure of, and
    averaged like scores.

    Raises:
        PredictionsError: also where the two tables do not hold the same ids, or tell another
            patient, data set, domain, answers or options of one.
    """
    tables = [
        answered(table).sort_values("id", kind="stable", ignore_index=True)
        for table in (before, after)
    ]
    _check_pairs(tables)
    resampling = Resampling(after, resamples, seed)
    first, second = (_tree(table, resampling, _scores) for table in _paired(tables))
    return _plain_tree(_difference(first, second))


def _check_pairs(tables: Sequence[pd.DataFrame]) -> None:
    """Refuse tables of other questions, or of other patients: their resamples are shared."""
    first, second = (list(table["id"]) for table in tables)
    if first != second:
        raise PredictionsError(
            "The two tables do not answer the same questions: predict with both models on one "
            "split, or keep the ids that both have."
        )
    for name in ("patient_id", "dataset", "domain", "answers", "options"):
        cells = [_comparable(table[name]) for table in tables]
        for key, one, other in zip(first, *cells, strict=True):
            if one != other:
                raise PredictionsError(
                    f"The two tables tell another {name} of the question {key!r}, {one!r} and "
                    f"{other!r}: predict with both models on one assembly of the data."
                )


def _paired(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Each without what the other cannot tell of the same row, such as its log-probabilities."""
    known = {
        name: np.logical_and.reduce([column(table, name).notna() for table in tables])
        for name in ("option_logprobs", *ROW_MEASURES)
    }
    return [
        table.assign(
            **{name: table[name].where(rows) for name, rows in known.items() if name in table}
        )
        for table in tables
    ]


def _comparable(values: pd.Series) -> list[Any]:
    """Cells of labels as lists: of a parquet file they are arrays."""
    return [list(value) if pd.api.types.is_list_like(value) else value for value in values]


Scorer = Callable[[pd.DataFrame, Weights], Estimates]


def _tree(table: pd.DataFrame, resampling: Resampling, score: Scorer) -> Node:
    domains = {}
    for name in domain_order(sorted(table["domain"].unique())):
        sets = table[table["domain"] == name].groupby("dataset")
        parts = {key: _leaf(rows, resampling, score) for key, rows in sets}
        own = table[table["domain"] == name]
        domains[name] = Node(_means(parts), len(own), own["patient_id"].nunique(), parts)
    return Node(_means(domains), len(table), table["patient_id"].nunique(), domains)


def _means(parts: dict[str, Node]) -> Estimates:
    """The unweighted mean of the parts, measure by measure over the parts that have it."""
    names = dict.fromkeys(name for part in parts.values() for name in part.estimates)
    return {
        name: mean_of([p.estimates[name] for p in parts.values() if name in p.estimates])
        for name in names
    }


def _leaf(rows: pd.DataFrame, resampling: Resampling, score: Scorer) -> Node:
    weights = resampling.weights(rows["patient_id"])
    with_classes = score is _scores and asks_for_a_label(rows)
    classes = class_scores(_label_sets(rows), weights) if with_classes else {}
    return Node(score(rows, weights), len(rows), rows["patient_id"].nunique(), classes=classes)


def _label_sets(rows: pd.DataFrame) -> LabelSets:
    return LabelSets.of(rows["answers"], rows["labels"], rows["options"])


def _scores(rows: pd.DataFrame, weights: Weights) -> Estimates:
    return {
        **(_label_estimates(rows, weights) if asks_for_a_label(rows) else {}),
        **weights.means(rows[list(ROW_MEASURES)]),
        **confidence_scores(rows, weights),
        **stay_scores(rows, weights),
    }


def _label_estimates(rows: pd.DataFrame, weights: Weights) -> Estimates:
    every = pd.Series(True, index=rows.index).to_numpy()
    scores = label_scores(_label_sets(rows), weights)
    return {name: weights.estimate(values, every) for name, values in scores.items()}


def _paper_scores(rows: pd.DataFrame, weights: Weights) -> Estimates:
    if not asks_for_a_label(rows):
        return {}
    every = pd.Series(True, index=rows.index).to_numpy()
    scores = paper_scores(LabelSets.of(*paper_sets(rows)), weights)
    return {name: weights.estimate(values, every) for name, values in scores.items()}


def _difference(first: Node, second: Node) -> Node:
    """Second minus first; above data sets the mean of what both have, as means of others differ."""
    parts = {name: _difference(first.parts[name], part) for name, part in second.parts.items()}
    estimates = {
        name: second.estimates[name].minus(first.estimates[name])
        for name in second.estimates
        if name in first.estimates
    }
    return Node(_means(parts) if parts else estimates, second.n, second.patients, parts)


def _plain_tree(root: Node) -> dict[str, Any]:
    domains = {}
    for name, domain in root.parts.items():
        sets = {key: _plain(part) | _plain_classes(part) for key, part in domain.parts.items()}
        domains[name] = _plain(domain) | {"datasets": sets}
    return {"overall": _plain(root), "domains": domains}


def _plain_classes(node: Node) -> dict[str, Any]:
    classes = {
        label: _plain(Node(estimates, first.n, len(first.patients)))
        for label, estimates in node.classes.items()
        for first in [next(iter(estimates.values()))]
    }
    return {"classes": classes} if classes else {}


def _plain(node: Node) -> dict[str, Any]:
    known = {name: one for name, one in node.estimates.items() if one.value == one.value}
    floors = {name: known[name].value for name in FLOORS if name in known}
    return {
        "n": node.n,
        "patients": node.patients,
        **{name: one.value for name, one in known.items() if name not in FLOORS},
        "floors": floors,
        "intervals": {name: one.interval for name, one in known.items()},
        "rows": {name: one.n for name, one in known.items()},
        "patients_of": {name: len(one.patients) for name, one in known.items()},
        "too_few": [name for name, one in known.items() if len(one.patients) < MIN_PATIENTS],
    }
