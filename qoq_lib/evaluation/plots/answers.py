"""Figures of the answers themselves: confusions, calibration, and overlap with the lesions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qoq_lib.domains import DOMAINS, PALETTE, domain_order
from qoq_lib.evaluation.metrics import answered
from qoq_lib.evaluation.metrics.confidence import BINS, confidences
from qoq_lib.evaluation.plots.theme import (
    FAINT,
    INK,
    PlotError,
    panels,
    set_title,
    short,
    titled,
)
from qoq_lib.evaluation.report import told

_CLASSES = 8
_EXTRA = {"other": "+", "none": "–"}


def confusion(predictions: pd.DataFrame) -> Figure:
    """What is answered for what, one panel per data set, in percent of the rows of a true label.

    The columns carry the numbers of the rows' labels. A row with two true labels counts in both
    lines; a panel shows its most frequent labels.
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
    figure.supxlabel("answered (number of the label; +: another label; –: none)", fontsize=9)
    return titled(figure, "Answers by true label (% of the label's rows)")


def confusion_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of the rows with a true label (line) that are answered with each label (column).

    ``rows`` as ``metrics.answered``. Lines and columns are the most frequent true labels; the last
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
    extra = [_EXTRA[name] for name in shares.columns[len(shares) :]]
    axis.set_yticks(range(len(lines)), lines, fontsize=7.5)
    axis.set_xticks(range(len(shares.columns)), numbers + extra, fontsize=7.5)
    axis.grid(False)


def reliability(predictions: pd.DataFrame) -> Figure:
    """How often the likeliest option applies, by its probability; one panel per domain.

    A point per tenth of probability that holds rows, its area by their number. On the diagonal the
    model knows how sure it may be; below it is too sure. ``PlotError`` without log-probabilities.
    """
    sure = pd.concat([predictions, confidences(predictions)], axis=1)
    sure = sure[sure["confidence"].notna()]
    if sure.empty:
        raise PlotError(
            "The predictions hold no option_logprobs: predict with logprobs=True for calibration."
        )
    domains = domain_order(list(sure["domain"].unique()))
    figure, axes = panels(len(domains), height=2.3, sharex=True, sharey=True)
    for axis, domain in zip(axes, domains, strict=True):
        rows = sure[sure["domain"] == domain]
        place = np.minimum(np.floor(rows["confidence"] * BINS), BINS - 1)
        bins = rows.groupby(place).agg({"confidence": "mean", "hit": ["mean", "size"]})
        axis.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle="--")
        x, y, n = bins.to_numpy().T
        axis.plot(x, y, color=PALETTE[domain], linewidth=1.0, alpha=0.5)
        dots = axis.scatter(x, y, s=12 + 160 * n / n.sum(), color=PALETTE[domain], zorder=3)
        dots.set(edgecolor="white", clip_on=False)
        axis.set_title(f"{DOMAINS[domain].title} (n = {len(rows):,})", fontsize=9)
        axis.set(xlim=(0, 1), ylim=(0, 1))
    figure.supxlabel("probability of the likeliest option", fontsize=9)
    figure.supylabel("share in which it applies", fontsize=9)
    return titled(figure, "Calibration by domain (dashed: perfect; area: share of the rows)")


def overlap_chart(
    predictions: Mapping[str, pd.DataFrame], scores: Mapping[str, Mapping[str, Any]]
) -> Figure:
    """IoU with the lesions of the last model, one panel per domain; a line: the one before it.

    Only rows with a lesion count; each is one IoU after matching boxes one to one, with the true
    boxes or, in a domain that has none, with the mask. Titles tell the domain's score, which is a
    mean over data sets. A model before it that draws no box is left out.

    Args:
        predictions: of each model.
        scores: ``metrics.evaluate`` of each.

    Raises:
        PlotError: no row has a lesion, or the last model draws no box.
    """
    names = list(predictions)[-2:]
    last, domains = names[-1], scores[names[-1]]["domains"]
    measures = {
        key: "box_iou" if "box_iou" in domains[key] else "mask_iou"
        for key in domain_order(list(domains))
        if {"box_iou", "mask_iou"} & set(domains[key])
    }
    if not measures:
        raise PlotError(
            f"The {last} model's predictions hold neither true boxes nor masks: there is no IoU."
        )
    tables = [_overlaps(answered(predictions[name]), measures) for name in names]
    rows = tables[-1]
    if not rows["regions"].map(len).any():
        raise PlotError(
            f"None of the {len(rows):,} completions of the {last} model about a lesion draws a "
            "well-formed box: the IoU is 0 throughout."
        )
    earlier = [table for table in tables[:-1] if table["regions"].map(len).any()]
    figure, axes = panels(len(measures), height=2.2, sharex=True, sharey=True)
    for axis, (domain, measure) in zip(axes, measures.items(), strict=True):
        _draw_overlaps(axis, rows, domain, color=PALETTE[domain])
        for table in earlier:
            _draw_overlaps(axis, table, domain, color=INK, histtype="step", linewidth=1.2)
        part, what = domains[domain], measure.replace("_iou", " IoU")
        score = f"{what} {told(part, measure)}, n = {part['rows'][measure]:,}"
        axis.set_title(f"{DOMAINS[domain].title}\n{score}", fontsize=9)
        axis.set_xlim(0, 1)
    figure.supxlabel("IoU with the lesions, boxes matched one to one", fontsize=9)
    figure.supylabel("share of rows", fontsize=9)
    line = f"; line: {names[0]}" if earlier else ""
    return titled(figure, f"Overlap with the lesions (filled: {last}{line})")


def _overlaps(table: pd.DataFrame, measures: Mapping[str, str]) -> pd.DataFrame:
    """The rows with a lesion, and as ``iou`` the measure of their domain."""
    parts = [(table[table["domain"] == domain], name) for domain, name in measures.items()]
    return pd.concat([rows.assign(iou=rows[name]) for rows, name in parts]).dropna(subset="iou")


def _draw_overlaps(axis: Axes, table: pd.DataFrame, domain: str, **style: Any) -> None:
    values = table.loc[table["domain"] == domain, "iou"]
    axis.hist(
        values,
        np.linspace(0, 1, 21).tolist(),
        weights=np.full(len(values), 1 / max(len(values), 1)),
        **style,
    )
