"""What a run's rollouts say about its training: means per step, groups without signal, gains.

A *group* is the rollouts of one question at one step. It has a signal when its rewards differ:
advantages compare rollouts with their own group, so equal rewards teach nothing.
"""

import numpy as np
import pandas as pd

from qoq_lib.domains import DOMAINS, domain_order

_SAME_REWARD = 1e-6


def per_step(rollouts: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Mean of ``columns`` at each step, steps as the index, in order."""
    return rollouts.groupby("step")[columns].mean().sort_index()


def smoothed(values: pd.Series, window: int) -> pd.Series:
    """Mean of the last ``window`` values at each step (of fewer at the start), gaps left out."""
    known = values.dropna().astype(float)
    return known.rolling(window, min_periods=1).mean()


def groups(rollouts: pd.DataFrame) -> pd.DataFrame:
    """One row per group.

    Returns:
        ``step, id, domain, without_signal, all_correct, none_correct``; the last two are true of
        groups without signal only. A group whose rewards are missing has no signal.
    """
    grouped = rollouts.groupby(["step", "id"], sort=True)
    table = grouped.agg(
        domain=("domain", "first"),
        low=("reward", "min"),
        high=("reward", "max"),
        correct=("correct", "mean"),
    ).reset_index()
    table["without_signal"] = ~((table["high"] - table["low"]) > _SAME_REWARD)
    table["all_correct"] = table["without_signal"] & (table["correct"] == 1)
    table["none_correct"] = table["without_signal"] & (table["correct"] == 0)
    return table.drop(columns=["low", "high", "correct"])


def first_and_last(rollouts: pd.DataFrame, share: float = 0.1) -> dict[str, pd.DataFrame]:
    """The rollouts of the first and of the last ``share`` of the steps, one step at least."""
    steps = np.sort(rollouts["step"].unique())
    count = max(1, round(share * len(steps)))
    ends = {"first": steps[:count], "last": steps[-count:]}
    return {name: rollouts[rollouts["step"].isin(part)] for name, part in ends.items()}


def gain_table(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Share of correct rollouts in the first and the last tenth of training, by domain.

    Returns:
        Indexed by domain title, with "All domains" last: ``rollouts`` (of the whole training),
        ``first``, ``last`` and ``change``. A domain that was not asked in a tenth has NaN there.
    """
    columns = {"rollouts": rollouts.groupby("domain").size()}
    totals: dict[str, float] = {"rollouts": len(rollouts)}
    for name, part in first_and_last(rollouts).items():
        correct = part["correct"].astype(float)
        columns[name] = correct.groupby(part["domain"]).mean()
        totals[name] = correct.mean()
    table = pd.DataFrame(columns).loc[domain_order(list(columns["rollouts"].index))]
    table.index = pd.Index([DOMAINS[name].title for name in table.index])
    table.loc["All domains"] = pd.Series(totals)
    table["change"] = table["last"] - table["first"]
    return table.astype({"rollouts": int})
