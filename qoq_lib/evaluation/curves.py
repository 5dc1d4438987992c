"""What training runs say over time: one measure, smoothed, for one run or over several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from qoq_lib.domains import DOMAINS, PALETTE, domain_order
from qoq_lib.evaluation.training_runs import TrainingRun, arms, first_and_last

By = Literal["domain", "dataset"]


@dataclass(frozen=True)
class Measure:
    """A quantity over optimiser steps: the mean of ``column`` of a ``TrainingRun``'s ``table``."""

    title: str
    unit: str
    table: Literal["rollouts", "groups", "log"]
    column: str

    @property
    def is_share(self) -> bool:
        """Whether values lie between 0 and 1 and are shown as per cent."""
        return self.unit.startswith("share")


MEASURES = {
    "reward": Measure("Total reward", "weighted sum", "rollouts", "reward"),
    "accuracy": Measure("Accuracy", "reward, unweighted", "rollouts", "reward_accuracy"),
    "iou": Measure("IoU with the lesion", "reward, unweighted", "rollouts", "reward_iou"),
    "format": Measure("Format", "reward, unweighted", "rollouts", "reward_format"),
    "length": Measure("Length", "reward, unweighted", "rollouts", "reward_length"),
    "correct": Measure("Correct rollouts", "share of rollouts", "rollouts", "correct"),
    "without_signal": Measure(
        "Equal rewards: no signal", "share of groups", "groups", "without_signal"
    ),
    "all_correct": Measure("Of these, all correct", "share of groups", "groups", "all_correct"),
    "none_correct": Measure("Of these, none correct", "share of groups", "groups", "none_correct"),
    "entropy": Measure("Entropy of the policy", "nats a token", "log", "entropy"),
    "kl": Measure("KL to the reference policy", "nats a token", "log", "kl"),
    "clipped": Measure("Clipped tokens", "share of tokens", "log", "clip_ratio/region_mean"),
    "tokens": Measure("Length of completions", "tokens", "rollouts", "n_tokens"),
    "cut": Measure("Cut at the longest length", "share of rollouts", "rollouts", "cut"),
    "domain_temperature": Measure("Domain temperature", "$T_g$", "groups", "domain_temperature"),
    "cluster_temperature": Measure("Cluster temperature", "$T_c$", "groups", "cluster_temperature"),
    "weight": Measure("Weight of the advantages", "factor", "groups", "weight"),
}
"""By the names that notebook 04 takes; the first six can be read by domain and data set."""


@dataclass(frozen=True)
class Part:
    """A domain or a data set of some runs: its title, its colour and the rows that belong to it."""

    title: str
    colour: str
    where: Mapping[str, str]


def parts(runs: Sequence[TrainingRun], by: By) -> list[Part]:
    """The domains, or the data sets, that the runs asked about, in the domains' order.

    A data set has its own name in the title where its domain has several.
    """
    pairs = pd.concat([run.rollouts[["domain", "dataset"]] for run in runs]).drop_duplicates()
    names = domain_order(list(pairs["domain"]))
    if by == "domain":
        return [Part(DOMAINS[name].title, PALETTE[name], {"domain": name}) for name in names]
    return [
        Part(
            f"{DOMAINS[name].title}: {dataset}", PALETTE[name], {"domain": name, "dataset": dataset}
        )
        for name in names
        for dataset in sorted(pairs.loc[pairs["domain"] == name, "dataset"])
    ]


def smoothed(values: pd.Series, window: int) -> pd.Series:
    """Mean of the last ``window`` values at each step (of fewer at the start), gaps left out."""
    known = values.dropna().astype(float)
    return known.rolling(window, min_periods=1).mean()


def rows_of(table: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """The rows that have these values: ``{"domain": "ct"}``."""
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def per_step(run: TrainingRun, measure: str, where: Mapping[str, str] | None = None) -> pd.Series:
    """Mean of a key of ``MEASURES`` at each step; empty where the run does not have it.

    ``where`` as of ``rows_of``; steps without rows are left out.
    """
    kind = MEASURES[measure]
    table: pd.DataFrame = getattr(run, kind.table)
    if kind.column not in table:
        return pd.Series(dtype=float)
    rows = rows_of(table, where or {})
    return rows[kind.column].astype(float).groupby(rows["step"]).mean().dropna()


def missing_measures(runs: Sequence[TrainingRun], names: Sequence[str]) -> list[str]:
    """Those of ``names`` that no run has a value of."""
    return [name for name in names if all(per_step(run, name).empty for run in runs)]


def band(
    runs: Sequence[TrainingRun],
    measure: str,
    window: int,
    where: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Mean, lowest and highest of the runs' smoothed curves, for the steps that all have reached.

    Returns:
        ``mean, low, high`` by step, empty where no run has the measure. Between its own steps (a
        rare domain is not asked at each) a run counts with its last value.
    """
    curves = [smoothed(per_step(run, measure, where), window) for run in runs]
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return pd.DataFrame(columns=["mean", "low", "high"], dtype=float)
    table = pd.concat(curves, axis=1, sort=True)
    reached = [table.index <= curve.index[-1] for curve in curves]
    for place, steps in enumerate(reached):
        table.isetitem(place, table.iloc[:, place].ffill().where(steps))
    table = table.dropna()
    return pd.DataFrame(
        {"mean": table.mean(axis=1), "low": table.min(axis=1), "high": table.max(axis=1)}
    )


def gain_table(
    runs: Sequence[TrainingRun], measure: str = "correct", by: By = "domain"
) -> pd.DataFrame:
    """Mean of a measure in the first and the last tenth of training, by domain or data set.

    Returns:
        A row per part and line of the figures, "All" last: ``rollouts`` of the whole training,
        ``first``, ``last`` and ``change``, each the mean over the line's runs. A part that no run
        was asked about in a tenth has NaN there.
    """
    rows = []
    for part in [*parts(runs, by), Part("All", "", {})]:
        for label, members in arms(runs).items():
            ends = pd.DataFrame([_ends(run, measure, part.where) for run in members]).mean()
            rows.append({"part": part.title, "method": label, **ends})
    table = pd.DataFrame(rows).set_index("part").rename_axis(None)
    table["change"] = table["last"] - table["first"]
    return table.round({"rollouts": 0}).astype({"rollouts": int})


def _ends(run: TrainingRun, measure: str, where: Mapping[str, str]) -> dict[str, float]:
    column = MEASURES[measure].column
    told = {"rollouts": float(len(rows_of(run.rollouts, where)))}
    for name, tenth in first_and_last(run.rollouts).items():  # tenths of all the run's steps
        values = rows_of(tenth, where).get(column, pd.Series(dtype=float))
        told[name] = float(values.astype(float).mean())
    return told
