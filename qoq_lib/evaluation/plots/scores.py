"""Figures of a test: models beside the trivial floors, and what is mistaken for what."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qoq_lib.domains import domain_order
from qoq_lib.evaluation.metrics import FLOORS, answered
from qoq_lib.evaluation.plots.theme import (
    INK,
    MODEL_COLOURS,
    legend_below,
    new_figure,
    panels,
    set_title,
    short,
    titled,
)
from qoq_lib.evaluation.report import score_table

FLOOR_STYLES = {
    "constant": ("D", "floor: best constant answer"),
    "invalid": ("X", "floor: never a valid answer"),
    "all_options": ("o", "floor: all options listed"),
}
_CLASSES = 8


def domain_bars(scores: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Macro-F1 by domain of each model as bars, the three trivial floors as markers.

    ``scores`` holds ``metrics.evaluate`` of each model's predictions; one seed, so no error bars.
    """
    table = score_table(scores)
    place = np.arange(len(table), dtype=float)
    place[-1] += 0.4  # the mean of the domains stands apart from them
    width = 0.8 / len(scores)
    figure = new_figure(4.2)
    axis = figure.add_subplot()
    for number, name in enumerate(scores):
        left = place + (number - (len(scores) - 1) / 2) * width
        axis.bar(left, table[name], width, color=MODEL_COLOURS[name], label=name)
    for floor in FLOORS:
        marker, label = FLOOR_STYLES[floor]
        height = table[floor.replace("_", " ")]
        dots = axis.scatter(place, height, s=42, color=INK, marker=marker, label=label)
        dots.set(edgecolor="white", zorder=3, clip_on=False)
    names = [
        f"{short([name], 12)}\nn = {n:,}" for name, n in zip(table.index, table["n"], strict=True)
    ]
    axis.set_xticks(place, names, fontsize=8)
    axis.set(ylabel="macro-F1", ylim=(0, 1), xlim=(-0.55, place[-1] + 0.55))
    axis.grid(False, axis="x")
    legend_below(figure, axis, columns=3)
    return titled(figure, "Macro-F1 on the test split by domain")


def confusion(predictions: pd.DataFrame) -> Figure:
    """What is answered for what, one panel per data set, in percent of the rows of a true label.

    The columns carry the numbers of the rows' labels; "none" is an answer without a label. A row
    with two true labels counts in both lines; a panel shows its most frequent labels.
    """
    sets = answered(predictions).groupby(["domain", "dataset"], sort=False)
    order = domain_order(list(predictions["domain"].unique()))
    parts = sorted(sets, key=lambda part: order.index(part[0][0]))
    domains = [domain for (domain, _), _ in parts]
    figure, axes = panels(len(parts), height=2.3)
    for axis, ((domain, dataset), rows) in zip(axes, parts, strict=True):
        _draw_shares(axis, confusion_shares(rows))
        title = set_title(domain, dataset, domains)
        axis.set_title(f"{title} (n = {len(rows):,})", fontsize=9)
    figure.supxlabel("answered (number of the label)", fontsize=9)
    return titled(figure, "Answers by true label (% of the label's rows)")


def confusion_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of the rows with a true label (line) that are answered with each label (column).

    ``rows`` as ``report.answered``. Lines and columns are the most frequent true labels; the last
    columns are "other" (where there are more labels) and "none".
    """
    frequent = rows["answers"].explode().value_counts()
    labels = list(frequent.index[:_CLASSES])
    every = sorted({label for options in rows["options"] for label in options})
    rest = ["other"] if len(every) > len(labels) else []
    columns = [*labels, *rest, "none"]
    shares = pd.DataFrame(0.0, index=labels, columns=columns)
    for true, said in zip(rows["answers"], rows["labels"], strict=True):
        answers = {label if label in labels else "other" for label in said} or {"none"}
        for label in [label for label in true if label in labels]:
            for answer in answers:
                shares.loc[label, answer] += 1 / frequent[label]
    return shares


def _draw_shares(axis: Axes, shares: pd.DataFrame) -> None:
    values = shares.to_numpy()
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for line, column in np.argwhere(values > 0.005):
        colour = "white" if values[line, column] > 0.6 else INK
        text = f"{100 * values[line, column]:.0f}"
        axis.text(column, line, text, color=colour, ha="center", va="center", fontsize=7.5)
    lines = [f"{short([name], 26, 1)}  {number}" for number, name in enumerate(shares.index, 1)]
    numbers = [str(number) for number in range(1, len(shares) + 1)]
    extra = list(shares.columns[len(shares) :])
    axis.set_yticks(range(len(lines)), lines, fontsize=7.5)
    axis.set_xticks(range(len(shares.columns)), numbers + extra, fontsize=7.5)
    axis.grid(False)
