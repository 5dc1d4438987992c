"""Figures of the rows themselves: contact sheet, ECG strip, and cases beside their answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import DatasetDict
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from qoq_lib.data.example import ecg_array
from qoq_lib.domains import DOMAINS, domain_order
from qoq_lib.evaluation.plots.counts import row_index
from qoq_lib.evaluation.plots.theme import (
    INK,
    WIDTH,
    PlotError,
    new_figure,
    short,
    titled,
    wrapped,
)

LEAD_ORDER = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_PAPER, _PAPER_BOLD, _BOX = "#F6D5D5", "#E9A9A9", "#FFE100"
_ROW_MV = 3.0
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
        for x1, y1, x2, y2 in row["boxes"] or []:
            box = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=_BOX)
            box.set(linewidth=1.1, path_effects=[withStroke(linewidth=2.2, foreground="black")])
            axis.add_patch(box)
    else:
        _show_leads(axis, row)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


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
    signal, leads, rate = _ecg(row)
    names = [name for name in _CELL_LEADS if name in leads] or leads[:4]
    count = min(int(_CELL_SECONDS * rate), signal.shape[1])
    for line, name in enumerate(names):
        trace = signal[leads.index(name), :count]
        shown = np.clip(trace - np.median(trace), -1.2, 2.2) - 2.2 * line
        axis.plot(np.arange(count) / rate, shown, color=INK, linewidth=0.6)
        axis.text(0, 0.35 - 2.2 * line, name, fontsize=6.5, ha="right")
    axis.set_xlim(-0.25, count / rate)


def ecg_strip(row: Mapping[str, Any]) -> Figure:
    """One ECG as on paper: 12 or 8 leads in columns of successive time, all of lead II below.

    Any other number of leads is drawn whole, one below the other. Grid: 0.2 s by 0.5 mV, at the
    usual proportion of 25 mm/s to 10 mm/mV. ``PlotError`` when the row has no ECG.
    """
    signal, leads, rate = _ecg(row)
    seconds = signal.shape[1] / rate
    columns = {12: 4, 8: 2}.get(len(leads), 1)
    lines = -(-len(leads) // columns)
    height = _ROW_MV * (lines + (columns > 1))
    figure = new_figure(WIDTH * min(0.4 * height / seconds, 1.2) + 0.9)
    axis = figure.add_subplot()
    _draw_paper(axis, seconds, height)
    for number, name in enumerate(leads):
        column, line = divmod(number, lines)
        part = (column * seconds / columns, (column + 1) * seconds / columns)
        _draw_lead(axis, signal[number], rate, name, part, -_ROW_MV * line)
    if columns > 1:
        rhythm = leads.index("II") if "II" in leads else 0
        _draw_lead(axis, signal[rhythm], rate, leads[rhythm], (0.0, seconds), -_ROW_MV * lines)
    title = f"{short(row['answers'], 70, 1)} · {row['id']} · {rate:g} Hz"
    return titled(figure, title)


def _ecg(row: Mapping[str, Any]) -> tuple[np.ndarray, list[str], float]:
    """Signal (leads x samples, mV), lead names in clinical order, samples a second."""
    signal = ecg_array(row)
    if signal is None:
        raise PlotError(f"Row {row['id']!r} has no ECG to draw: choose a row of the ECG domain.")
    names = list(row["ecg_leads"])
    known = [name for name in LEAD_ORDER if name in names]
    order = known + [name for name in names if name not in known]
    return signal[[names.index(name) for name in order]], order, float(row["ecg_rate_hz"])


def _draw_paper(axis: Axes, seconds: float, height: float) -> None:
    top = _ROW_MV / 2
    axis.set(xlim=(0, seconds), ylim=(top - height, top), yticks=[])
    axis.set_aspect(0.4, anchor="N")
    axis.grid(False)
    axis.vlines(np.arange(0, seconds, 0.2), top - height, top, color=_PAPER, linewidth=0.5)
    axis.hlines(np.arange(top - height, top, 0.5), 0, seconds, color=_PAPER, linewidth=0.5)
    axis.vlines(np.arange(0, seconds, 1.0), top - height, top, color=_PAPER_BOLD, linewidth=0.6)
    axis.set_xticks(np.arange(0, seconds + 0.01, 1.0))
    axis.set_xlabel("time (s); a square is 0.2 s by 0.5 mV")


def _draw_lead(
    axis: Axes,
    trace: np.ndarray,
    rate: float,
    name: str,
    part: tuple[float, float],
    level: float,
) -> None:
    first, last = (round(second * rate) for second in part)
    times = np.arange(first, last) / rate
    axis.plot(times, trace[first:last] - np.median(trace) + level, color=INK, linewidth=0.8)
    axis.plot([part[0]] * 2, [level - 0.5, level + 0.5], color=INK, linewidth=1.2)
    label = axis.text(part[0] + 0.06, level + 0.95, name, fontsize=9, fontweight="bold")
    label.set_path_effects([withStroke(linewidth=2, foreground="white")])


def case_sheet(rows: Sequence[Mapping[str, Any]], cases: pd.DataFrame, title: str) -> Figure:
    """Cases with their image or ECG, the true answer, the labels read and the completion.

    ``rows`` are assembled rows in the order of ``cases`` (``report.cases``). Long completions are
    cut: their table beside the figure shows them whole.
    """
    columns = min(3, len(rows))
    if not columns:
        raise PlotError("There is no case to show: give at least one row.")
    lines = -(-len(rows) // columns)
    figure = new_figure(3.3 * lines + 0.5)
    grid = figure.add_gridspec(2 * lines, columns, height_ratios=[2.4, 0.9] * lines)
    for number, (row, case) in enumerate(zip(rows, cases.to_dict("records"), strict=True)):
        line, column = divmod(number, columns)
        axis = figure.add_subplot(grid[2 * line, column])
        show_media(axis, row)
        axis.set_title(DOMAINS[row["domain"]].title, loc="center", fontweight="bold")
        words = figure.add_subplot(grid[2 * line + 1, column])
        words.axis("off")
        words.text(0.5, 1, _case_text(case), va="top", ha="center", fontsize=8, parse_math=False)
    return titled(figure, title)


def _case_text(case: Mapping[str, Any]) -> str:
    said = short(case["labels"], 36) if case["labels"] else "no valid answer"
    lines = [f"true: {short(case['answers'], 36)}", f"answered: {said}"]
    return "\n".join([*lines, wrapped(f'"{case["completion"]}"', 46, 3)])
