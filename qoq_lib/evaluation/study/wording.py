"""Pieces of a study's page: intervals in words, tables as Markdown, rows of its tables."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from qoq_lib.evaluation.study.scoring import OVERALL
from qoq_lib.evaluation.study.statistics import Interval, mean_interval


def interval_text(interval: Interval, signed: bool = False, digits: int = 3) -> str:
    """``mean [low, high]``, or in words that there is no interval or no value."""
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    if not np.isfinite(interval.mean):
        return "no value"
    mean = form.format(interval.mean)
    if not np.isfinite(interval.low):
        return f"{mean} [no interval]"
    return f"{mean} [{form.format(interval.low)}, {form.format(interval.high)}]"


def floor_text(results: pd.DataFrame, floor: str) -> str:
    """An overall floor, which all arms of a seed share: mean over seeds with its interval."""
    chosen = results[(results["domain"] == OVERALL) & (results["metric"] == floor)]
    return interval_text(mean_interval(chosen.groupby("seed")["value"].first().to_numpy()))


def overall_runs(results: pd.DataFrame) -> Iterable:
    """``((arm, decoding), rows)`` of the overall scores."""
    return results[results["domain"] == OVERALL].groupby(["arm", "decoding"], sort=False)


def questions_text(results: pd.DataFrame, metric: str) -> str:
    """Questions that a seed's overall score rests on: a number, or lowest to highest."""
    counts = results[(results["domain"] == OVERALL) & (results["metric"] == metric)]["n"]
    return " to ".join(f"{count:,}" for count in sorted({counts.min(), counts.max()}))


def compared_row(
    comparison: pd.DataFrame, metric: str = "macro_f1", **keys: str
) -> pd.Series | None:
    """The row of the comparison with these values in these columns, or ``None``."""
    chosen = comparison[comparison["metric"] == metric]
    for name, value in keys.items():
        chosen = chosen[chosen[name] == value]
    return None if chosen.empty else chosen.iloc[0]


def markdown(table: pd.DataFrame) -> str:
    """A table with its index as Markdown."""
    table = table.reset_index()
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
