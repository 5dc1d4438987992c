"""Scores by sex and by age band, and the gaps between them."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from qoq_lib.evaluation.metrics.checking import column
from qoq_lib.evaluation.metrics.resampling import MIN_PATIENTS, Estimate, mean_of

AGE_BANDS = {"0-17": 0, "18-39": 18, "40-59": 40, "60-79": 60, "80+": 80}
"""Bands of age in years, by their lower bounds."""

GAP_MEASURES = ("macro_f1", "penalised_f1", "balanced_accuracy", "exact_match", "invalid_rate")

Tree = Any
"""``scores.Node``, which this module only looks into."""


def age_band(years: pd.Series) -> pd.Series:
    """The band of each age, missing where the age is."""
    edges = [*AGE_BANDS.values(), np.inf]
    return pd.cut(years.astype(float), edges, right=False, labels=list(AGE_BANDS)).astype(object)


def subgroups(
    table: pd.DataFrame,
    tree_of: Callable[[pd.DataFrame], Tree],
    plain: Callable[[Tree], dict[str, Any]],
) -> dict[str, Any]:
    """Overall and domain scores of each group of patients, and the gap between the groups.

    Returns:
        For ``sex`` and ``age``, where the table tells them: ``{"groups": {name: {"overall":
        scores, "domains": {name: scores}}}, "missing": rows of none, "gaps": {measure: {"value",
        "highest", "lowest", "interval", "datasets"}}}``. A gap is between the two groups that
        differ most. It is the mean of their differences in each of the ``datasets`` data sets in
        which both have at least ``MIN_PATIENTS`` patients, over data sets, then domains; of all
        data sets it would also tell who was asked what. A measure without such sets has no gap.
    """
    kinds = {"sex": column(table, "sex"), "age": age_band(column(table, "age_years"))}
    found = {}
    for kind, groups in kinds.items():
        present = [name for name in ("F", "M", *AGE_BANDS) if (groups == name).any()]
        trees = {name: tree_of(table[(groups == name).to_numpy()]) for name in present}
        if trees:
            found[kind] = {
                "groups": {name: _levels(tree, plain) for name, tree in trees.items()},
                "missing": int((~groups.isin(present)).sum()),
                "gaps": _gaps(trees),
            }
    return found


def _levels(tree: Tree, plain: Callable[[Tree], dict[str, Any]]) -> dict[str, Any]:
    domains = {name: plain(part) for name, part in tree.parts.items()}
    return {"overall": plain(tree), "domains": domains}


def _gaps(trees: dict[str, Tree]) -> dict[str, Any]:
    """Of each measure, the pair of groups that differ most."""
    gaps = {}
    for measure in GAP_MEASURES:
        found = [_gap(trees, *pair, measure) for pair in permutations(trees, 2)]
        if told := [gap for gap in found if gap]:
            gaps[measure] = max(told, key=lambda gap: gap["value"])
    return gaps


def _gap(trees: dict[str, Tree], highest: str, lowest: str, measure: str) -> dict[str, Any] | None:
    """One group minus another, averaged like a score over the data sets that both have."""
    domains, datasets = [], 0
    for domain, part in trees[highest].parts.items():
        other = trees[lowest].parts.get(domain)
        shared = _differences(part.parts, other.parts, measure) if other else []
        datasets += len(shared)
        domains += [mean_of(shared)] if shared else []
    if not domains:
        return None
    gap = mean_of(domains)
    return {
        "value": gap.value,
        "highest": highest,
        "lowest": lowest,
        "interval": gap.interval,
        "datasets": datasets,
    }


def _differences(first: dict[str, Tree], second: dict[str, Tree], measure: str) -> list[Estimate]:
    """First minus second in each data set where both have the measure of enough patients."""
    differences = []
    for name in sorted(first.keys() & second.keys()):
        one, other = (part[name].estimates.get(measure) for part in (first, second))
        if one and other and min(len(one.patients), len(other.patients)) >= MIN_PATIENTS:
            differences.append(one.minus(other))
    return [gap for gap in differences if np.isfinite(gap.value)]
