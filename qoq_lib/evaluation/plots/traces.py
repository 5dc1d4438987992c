"""Figures of a trace set: how long answers are, what they say, how far rollouts agree."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from qoq_lib.domains import DOMAINS, PALETTE, domain_order
from qoq_lib.evaluation.plots.theme import (
    FAINT,
    PlotError,
    legend_below,
    panels,
    set_title,
    short,
    titled,
)

_OUTCOMES = ((True, "#1B4F91", "correct"), (False, "#DE8F05", "wrong"))
_ANSWERS = 8
_BINS = 30


def length_chart(index: pd.DataFrame) -> Figure:
    """Tokens of correct and of wrong answers by domain, in shares of each.

    ``index`` has ``domain, n_tokens, correct``. ``PlotError`` where no lengths are known.
    """
    if "n_tokens" not in index or not index["n_tokens"].notna().any():
        raise PlotError("These traces do not tell how many tokens the answers have.")
    domains = domain_order(list(index["domain"].unique()))
    figure, axes = panels(len(domains), height=1.9, sharex=True)
    low, high = index["n_tokens"].min(), index["n_tokens"].max()
    edges = np.linspace(low - 0.5, high + 0.5, int(min(_BINS, high - low + 1)) + 1)
    for axis, domain in zip(axes, domains, strict=True):
        rows = index[index["domain"] == domain]
        for outcome, colour, word in _OUTCOMES:
            tokens = rows.loc[rows["correct"] == outcome, "n_tokens"].dropna()
            counts = np.histogram(tokens, edges)[0] / max(len(tokens), 1)
            axis.stairs(counts, edges, color=colour, linewidth=1.8, label=word)
            axis.stairs(counts, edges, color=colour, alpha=0.15, fill=True)
        axis.set_title(f"{DOMAINS[domain].title} (n = {len(rows):,})", fontsize=9)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _label(axes, "tokens of the completion", "share of these")
    legend_below(figure, axes[0])
    return titled(figure, f"Lengths of correct and wrong answers (n = {len(index):,})")


def answer_chart(index: pd.DataFrame) -> Figure:
    """What is true and what is answered, by data set: a filled bar and a mark per label.

    ``index`` has ``domain, dataset, said, true``. Most frequent labels first; where several labels
    apply, their list counts as one.
    """
    pairs = index[["domain", "dataset"]].drop_duplicates()
    order = domain_order(list(pairs["domain"]))
    pairs = pairs.assign(place=[order.index(name) for name in pairs["domain"]])
    pairs = pairs.sort_values(["place", "dataset"])
    figure, axes = panels(len(pairs), height=2.1)
    for axis, (domain, dataset) in zip(
        axes, zip(pairs["domain"], pairs["dataset"], strict=True), strict=True
    ):
        rows = index[(index["domain"] == domain) & (index["dataset"] == dataset)]
        _answer_bars(axis, rows, PALETTE[domain])
        title = set_title(domain, dataset, list(pairs["domain"]))
        axis.set_title(f"{title} (n = {len(rows):,})", fontsize=9)
    _label(axes, "share of traces")
    legend_below(figure, axes[0])
    return titled(figure, f"Labels that are true and labels that are answered (n = {len(index):,})")


def _label(axes: Sequence[Axes], below: str, beside: str = "") -> None:
    """Names of the axes, at the panels of the last row and of the first column."""
    for number, axis in enumerate(axes):
        if number >= len(axes) - 3:
            axis.set_xlabel(below)
        if number % 3 == 0 and beside:
            axis.set_ylabel(beside)


def _answer_bars(axis: Axes, rows: pd.DataFrame, colour: str) -> None:
    shares = pd.DataFrame(
        {name: rows[name].astype(str).value_counts(normalize=True) for name in ("true", "said")}
    ).fillna(0.0)
    shares = shares.sort_values(["true", "said"], ascending=False)
    rest = len(shares) - _ANSWERS
    shares = shares.head(_ANSWERS)
    lines = np.arange(len(shares))
    axis.barh(lines, shares["true"], color=colour, alpha=0.45, height=0.7, label="true")
    axis.plot(shares["said"], lines, "D", color="#222222", markersize=4.5, label="answered")
    axis.hlines(lines, shares["true"], shares["said"], color=FAINT, linewidth=1)
    axis.set_yticks(lines, [short([name], 24, 1) for name in shares.index], fontsize=7.5)
    if rest > 0:
        axis.text(
            1, 0, f"{rest} more", transform=axis.transAxes, ha="right", va="bottom", fontsize=7.5
        )
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.xaxis.set_major_locator(MaxNLocator(4))


def agreement_chart(grouped: pd.DataFrame) -> Figure:
    """How many groups agree how far, by domain, and whether their majority is right.

    ``grouped`` has ``domain, agreement, majority``: a row per group of rollouts. ``PlotError``
    where every group is one rollout.
    """
    if not (grouped["rollouts"] > 1).any():
        raise PlotError("Each question has one rollout here: there is no agreement to show.")
    domains = domain_order(list(grouped["domain"].unique()))
    figure, axes = panels(len(domains), height=1.9, sharex=True)
    size = int(grouped["rollouts"].median())
    edges = (np.arange(size + 1) + 0.5) / size
    for axis, domain in zip(axes, domains, strict=True):
        rows = grouped[grouped["domain"] == domain]
        below = np.zeros(size)
        for outcome, colour, word in _OUTCOMES:
            part = rows.loc[rows["majority"] == outcome, "agreement"]
            counts = np.histogram(part, edges)[0] / len(rows)
            middle = (edges[:-1] + edges[1:]) / 2
            axis.bar(middle, counts, 0.8 / size, below, color=colour, label=f"majority {word}")
            below = below + counts
        axis.set_title(f"{DOMAINS[domain].title} (n = {len(rows):,})", fontsize=9)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _label(axes, "rollouts with the group's top answer", "share of groups")
    legend_below(figure, axes[0])
    return titled(figure, f"Agreement of the rollouts of a question ({len(grouped):,} groups)")
