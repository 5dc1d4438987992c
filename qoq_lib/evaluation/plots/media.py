"""Figures of the rows themselves: contact sheet, regions of an image, cases beside answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import DatasetDict
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from qoq_lib.domains import DOMAINS, domain_order
from qoq_lib.evaluation.plots.counts import row_index
from qoq_lib.evaluation.plots.ecg import read_leads
from qoq_lib.evaluation.plots.theme import (
    INK,
    PlotError,
    new_figure,
    short,
    titled,
    wrapped,
)

_TRUE, _PREDICTED = "#FFE100", "#00B7FF"
_SHOWN_PIXELS = 384
_CELL_LEADS, _CELL_SECONDS = ("I", "II", "V1", "V5"), 4.0


def contact_sheet(data: DatasetDict, per_domain: int = 6, seed: int = 0) -> Figure:
    """A row of examples per domain, lesion boxes drawn; an ECG takes the width of two images.

    Examples are drawn from the diagnosis splits, classes in turn, the most frequent first.
    """
    index = row_index(data)
    index = index[index["split"] != "align"]
    domains = domain_order(list(index["domain"].unique()))
    figure = new_figure(1.62 * len(domains) + 0.5)
    grid = figure.add_gridspec(len(domains), per_domain)
    for line, domain in enumerate(domains):
        span = 2 if DOMAINS[domain].modality == "ecg" and per_domain > 1 else 1
        chosen = _examples(index[index["domain"] == domain], per_domain // span, seed)
        for place, (split, position) in enumerate(chosen):
            axis = figure.add_subplot(grid[line, span * place : span * (place + 1)])
            row = data[split][position]
            show_media(axis, row)
            axis.set_title(short(row["answers"], 22 * span), fontsize=7.5, loc="center", pad=3)
            if place == 0:
                axis.set_ylabel(DOMAINS[domain].title, fontweight="bold")
    figure.align_ylabels()
    return titled(figure, f"Examples by domain ({len(index):,} rows); boxes mark lesions")


def _examples(rows: pd.DataFrame, count: int, seed: int) -> list[tuple[str, int]]:
    """Split and position of ``count`` rows, classes in turn."""
    rows = rows.sample(frac=1, random_state=seed)
    label = rows["answers"].map(", ".join)
    rows = rows.assign(turn=label.groupby(label).cumcount(), size=label.map(label.value_counts()))
    rows = rows.sort_values(["turn", "size"], ascending=[True, False], kind="stable").head(count)
    return [
        (str(split), int(at)) for split, at in zip(rows["split"], rows["position"], strict=True)
    ]


def show_media(axis: Axes, row: Mapping[str, Any]) -> None:
    """Draw the row's first image with its boxes, or four leads of its ECG, without ticks."""
    if row["images"]:
        _show_image(axis, row["images"][0])
        _draw_boxes(axis, [] if row["boxes"] is None else row["boxes"], _TRUE)
    else:
        _show_leads(axis, row)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _draw_boxes(
    axis: Axes, boxes: Sequence[Sequence[float]], colour: str, thick: float = 1.1
) -> None:
    """Outline boxes given in the image's pixels."""
    for x1, y1, x2, y2 in boxes:
        box = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour)
        box.set(linewidth=thick, path_effects=[_outline(thick)])
        axis.add_patch(box)


def _outline(thick: float) -> withStroke:
    return withStroke(linewidth=2 * thick, foreground="black")


def answer_regions(row: Mapping[str, Any], predicted: Sequence[Sequence[float]]) -> Figure:
    """The row's first image with its own boxes and, in another colour, those of an answer.

    ``predicted`` are boxes ``[x1, y1, x2, y2]`` in pixels of the original image (an answer's are in
    the model's: ``model.pixels.convert_boxes``). ``PlotError`` when the row has no image.
    """
    if not row["images"]:
        raise PlotError(f"Row {row['id']!r} has no image to draw: choose a row with one.")
    true = row["boxes"] or []
    figure = new_figure(5.4, width=5.4)
    axis = figure.add_subplot()
    show_media(axis, {**row, "boxes": None})
    _draw_boxes(axis, true, _TRUE, 2.0)
    _draw_boxes(axis, predicted, _PREDICTED, 2.0)
    counts = {
        _TRUE: f"marked in the data: {len(true) or 'none'}",
        _PREDICTED: f"named by the model: {len(predicted) or 'none'}",
    }
    _box_legend(figure, counts)
    return titled(figure, short([*row["answers"], row["id"]], 60, 1))


def _box_legend(figure: Figure, words: Mapping[str, str]) -> None:
    """What the boxes of each colour are, below the figure."""
    lines = [
        Line2D([], [], color=colour, linewidth=2.0, label=label, path_effects=[_outline(2.0)])
        for colour, label in words.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncol=2, frameon=False)


def _show_image(axis: Axes, image: Image.Image) -> None:
    """Draw an image in the coordinates of its own pixels; a large one is reduced first."""
    width, height = image.size
    scale = min(1.0, _SHOWN_PIXELS / max(width, height))
    small = image.convert("RGB")
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = small.resize(size, Image.Resampling.BOX)
    axis.imshow(np.asarray(small), extent=(-0.5, width - 0.5, height - 0.5, -0.5))


def _show_leads(axis: Axes, row: Mapping[str, Any]) -> None:
    signal, leads, rate = read_leads(row)
    names = [name for name in _CELL_LEADS if name in leads] or leads[:4]
    count = min(int(_CELL_SECONDS * rate), signal.shape[1])
    for line, name in enumerate(names):
        trace = signal[leads.index(name), :count]
        shown = np.clip(trace - np.median(trace), -1.2, 2.2) - 2.2 * line
        axis.plot(np.arange(count) / rate, shown, color=INK, linewidth=0.6)
        axis.text(0, 0.35 - 2.2 * line, name, fontsize=6.5, ha="right")
    axis.set_xlim(-0.25, count / rate)


def case_sheet(rows: Sequence[Mapping[str, Any]], cases: pd.DataFrame, title: str) -> Figure:
    """Cases with their image or ECG, true and drawn boxes, the answer and the completion.

    ``rows`` are those of ``cases`` as the model saw them (``cases.as_seen``). Long completions are
    cut: their table beside the figure shows them whole.
    """
    columns = min(3, len(rows))
    if not columns:
        raise PlotError("There is no case to show: give at least one row.")
    lines = -(-len(rows) // columns)
    figure = new_figure(3.3 * lines + 0.7)
    grid = figure.add_gridspec(2 * lines, columns, height_ratios=[2.4, 0.9] * lines)
    for number, (row, case) in enumerate(zip(rows, cases.to_dict("records"), strict=True)):
        line, column = divmod(number, columns)
        axis = figure.add_subplot(grid[2 * line, column])
        show_media(axis, row)
        _draw_boxes(axis, row["regions"] or [], _PREDICTED, 1.4)
        axis.set_title(DOMAINS[row["domain"]].title, loc="center", fontweight="bold")
        words = figure.add_subplot(grid[2 * line + 1, column])
        words.axis("off")
        words.text(0.5, 1, _case_text(case), va="top", ha="center", fontsize=8, parse_math=False)
    drawn = "drawn by the model" if any(row["regions"] for row in rows) else "the model drew none"
    _box_legend(figure, {_TRUE: "marked in the data", _PREDICTED: drawn})
    return titled(figure, title)


def _case_text(case: Mapping[str, Any]) -> str:
    said = short(case["labels"], 36) if case["labels"] else "no valid answer"
    lines = [f"true: {short(case['answers'], 36)}", f"answered: {said}"]
    return "\n".join([*lines, wrapped(f'"{case["completion"]}"', 46, 3)])
