"""Scores by sex and by age band, and the gaps between them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from qoq_lib.evaluation.metrics.reading import column
from qoq_lib.evaluation.metrics.resampling import MIN_PATIENTS

AGE_BANDS = {"0-17": 0, "18-39": 18, "40-59": 40, "60-79": 60, "80+": 80}
"""Bands of age in years, by their lower bounds."""

GAP_MEASURES = ("macro_f1", "penalised_f1", "balanced_accuracy", "exact_match", "invalid_rate")

Tree = Any
"""``scores.Node``, which this module only looks into."""


def age_band(years: pd.Series) -> pd.Series:
    """The band of each age, missing where the age is."""
    edges = [*AGE_BANDS.values(), np.inf]
    known = pd.to_numeric(years).astype(float)
    return pd.cut(known, edges, right=False, labels=list(AGE_BANDS)).astype(object)


def subgroups(
    table: pd.DataFrame,
    tree_of: Callable[[pd.DataFrame], Tree],
    plain: Callable[[Tree], dict[str, Any]],
) -> dict[str, Any]:
    """Overall and domain scores of each group of patients, and the gap between the groups.

    Returns:
        For ``sex`` and ``age``, where the table tells them: ``{"groups": {name: {"overall":
        scores, "domains": {name: scores}}}, "missing": rows without it, "gaps": {measure: {"value",
        "highest", "lowest", "interval"}}}``. A gap is the difference of the overall scores of the
        best and the worst group, among those of at least ``MIN_PATIENTS`` patients; its interval
        is that of the difference between these two groups.
    """
    kinds = {"sex": column(table, "sex"), "age": age_band(column(table, "age_years"))}
    found = {}
    for kind, groups in kinds.items():
        present = [name for name in ("F", "M", *AGE_BANDS) if (groups == name).any()]
        trees = {name: tree_of(table[(groups == name).to_numpy()]) for name in present}
        if trees:
            found[kind] = {
                "groups": {name: _levels(tree, plain) for name, tree in trees.items()},
                "missing": int(groups.isna().sum()),
                "gaps": _gaps(trees),
            }
    return found


def _levels(tree: Tree, plain: Callable[[Tree], dict[str, Any]]) -> dict[str, Any]:
    domains = {name: plain(part) for name, part in tree.parts.items()}
    return {"overall": plain(tree), "domains": domains}


def _gaps(trees: dict[str, Tree]) -> dict[str, Any]:
    enough = {name: tree for name, tree in trees.items() if tree.patients >= MIN_PATIENTS}
    if len(enough) < 2:
        return {}
    gaps = {}
    for measure in GAP_MEASURES:
        scores = {name: tree.estimates[measure] for name, tree in enough.items()}
        ranked = sorted(scores, key=lambda name: scores[name].value)
        gap = scores[ranked[-1]].minus(scores[ranked[0]])
        gaps[measure] = {
            "value": gap.value,
            "highest": ranked[-1],
            "lowest": ranked[0],
            "interval": gap.interval,
        }
    return gaps
