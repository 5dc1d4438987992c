"""Figures of what was assembled: rows by domain, split and class."""

import pandas as pd
import pyarrow.compute as pc
from datasets import DatasetDict
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qoq_lib.data.example import SPLITS
from qoq_lib.domains import DOMAINS, PALETTE, domain_order
from qoq_lib.evaluation.plots.theme import (
    legend_below,
    new_figure,
    panels,
    set_title,
    short,
    titled,
)

SPLIT_COLOURS = {
    "align": "#C4C4C4",
    "train": "#1B4F91",
    "validation": "#7FA8D9",
    "test": "#DE8F05",
}
_CLASSES = 8


def row_index(data: DatasetDict) -> pd.DataFrame:
    """``domain, dataset, answers, split, position`` of every row, without its media."""
    parts = []
    for split, rows in data.items():
        part = rows.select_columns(["domain", "dataset", "answers"]).to_pandas()
        parts.append(part.assign(split=split, position=range(len(part))))
    return pd.concat(parts, ignore_index=True)


def modality_counts(data: DatasetDict) -> pd.DataFrame:
    """Rows with an image, several images, an ECG, a report, a mask and boxes, by domain title.

    Lengths and nulls are read from the tables' own bookkeeping; no image is loaded.
    """
    parts = []
    for rows in data.values():
        stored = rows.data.table
        images = pc.fill_null(pc.list_value_length(stored["images"]), 0).to_numpy()
        columns = {"images": images > 0, "several images": images > 1}
        for name in ("ecg", "report", "mask", "boxes"):
            columns[name] = stored[name].is_valid().to_numpy()
        parts.append(pd.DataFrame({"domain": rows["domain"], "rows": True} | columns))
    counts = pd.concat(parts).groupby("domain").sum()
    counts = counts.loc[domain_order(list(counts.index))]
    return counts.set_index(pd.Index([DOMAINS[name].title for name in counts.index]))


def count_chart(data: DatasetDict) -> Figure:
    """Rows by domain, stacked by split; the total stands at each bar's end."""
    counts = row_index(data).groupby(["domain", "split"]).size().unstack(fill_value=0)
    counts = counts.loc[domain_order(list(counts.index))]
    titles = [DOMAINS[name].title for name in counts.index]
    figure = new_figure(0.36 * len(counts) + 1.4)
    axis = figure.add_subplot()
    left = pd.Series(0, index=counts.index)
    for split in [name for name in SPLITS if name in counts]:
        colour = SPLIT_COLOURS[split]
        axis.barh(titles, counts[split], left=left, color=colour, label=split, height=0.72)
        left = left + counts[split]
    for line, total in enumerate(left):
        axis.text(total, line, f" {total:,}", va="center", fontsize=8.5)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set(xlabel="rows", xlim=(0, 1.08 * left.max()))
    legend_below(figure, axis)
    return titled(figure, f"Rows by domain and split (n = {left.sum():,})")


def class_chart(data: DatasetDict) -> Figure:
    """Rows by diagnosis, one panel per data set, the perception questions left out.

    A row with two answers counts under both; a panel shows its most frequent classes.
    """
    index = row_index(data)
    index = index[index["split"] != "align"]
    names = index[["domain", "dataset"]].drop_duplicates()
    order = domain_order(list(names["domain"]))
    names = names.sort_values("domain", key=lambda column: column.map(order.index), kind="stable")
    figure, axes = panels(len(names), height=1.9)
    for axis, (domain, dataset) in zip(axes, names.itertuples(index=False), strict=True):
        rows = index[(index["domain"] == domain) & (index["dataset"] == dataset)]
        counts = rows["answers"].explode().value_counts()
        shown = counts.head(_CLASSES)
        labels = [short([name], 26, 1) for name in shown.index]
        axis.barh(range(len(shown)), shown, color=PALETTE[domain], height=0.75)
        axis.set_yticks(range(len(shown)), labels, fontsize=7.5)
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        more = f", top {_CLASSES} of {len(counts)} classes" if len(counts) > _CLASSES else ""
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        title = set_title(domain, dataset, list(names["domain"]))
        axis.set_title(f"{title} (n = {len(rows):,}{more})", fontsize=9)
    figure.supxlabel("rows", fontsize=9)
    return titled(figure, "Diagnoses by data set (train, validation and test)")
