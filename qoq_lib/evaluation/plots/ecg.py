"""An ECG as a clinician reads it: on squared paper, at 25 mm/s and 10 mm/mV.

The usual printout: four columns of three leads, one after the other in time, a rhythm strip of
lead II below them, and a calibration pulse of 1 mV for 0.2 s before each line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from qoq_lib.data.example import ecg_array
from qoq_lib.evaluation.plots.theme import FAINT, INK, PlotError, new_figure, short

LEAD_ORDER = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MM_PER_SECOND, MM_PER_MV = 25.0, 10.0
SHOWN_SECONDS = 10.0
_LINE_MV = 3.0  # height of one line of leads
_ROOM_MV = 3.0  # at most so much more above the first line and below the last
_PULSE_SECONDS = 0.2
_PAPER, _FINE, _BOLD = "#FFF8F6", "#F7DAD6", "#E5A39B"
_MARGIN_SECONDS = 0.4  # paper before the signal, for the pulse
_BORDER_MM, _HEAD_MM, _FOOT_MM = 4.0, 11.0, 9.0


def ecg_strip(row: Mapping[str, Any]) -> Figure:
    """One ECG as on paper: 12 or 8 leads in columns of successive time, all of lead II below.

    Any other number of leads is drawn whole, one below the other. At most the first 10 s are shown,
    as the model sees no more. A small square is 0.04 s by 0.1 mV and a large one 0.2 s by 0.5 mV;
    the figure is made at true scale, so that a print at 100 % can be measured with a ruler.
    ``PlotError`` when the row has no ECG.
    """
    signal, leads, rate = read_leads(row)
    whole = signal.shape[1] / rate
    seconds = min(whole, SHOWN_SECONDS)
    traces = _layout(signal, leads, rate, seconds)
    heights = np.concatenate([trace.millivolts for trace in traces])
    top = _outwards(heights.max(), _LINE_MV / 2)
    bottom = -_outwards(-heights.min(), _LINE_MV / 2 - min(trace.level for trace in traces))
    figure, axis = _paper(seconds, bottom, top)
    for trace in traces:
        _draw_trace(axis, trace)
    cut = f" · first {seconds:g} s of {whole:.4g} s" if whole > seconds else ""
    scale = f"{MM_PER_SECOND:g} mm/s · {MM_PER_MV:g} mm/mV · {rate:g} Hz{cut}"
    _write(figure, short([*row["answers"], row["id"]], 110, 1), scale)
    return figure


def read_leads(row: Mapping[str, Any]) -> tuple[np.ndarray, list[str], float]:
    """Signal (leads x samples, mV), lead names in clinical order, samples a second."""
    signal = ecg_array(row)
    if signal is None:
        raise PlotError(f"Row {row['id']!r} has no ECG to draw: choose a row of the ECG domain.")
    names = list(row["ecg_leads"])
    known = [name for name in LEAD_ORDER if name in names]
    order = known + [name for name in names if name not in known]
    return signal[[names.index(name) for name in order]], order, float(row["ecg_rate_hz"])


def _layout(signal: np.ndarray, leads: list[str], rate: float, seconds: float) -> list["_Trace"]:
    """Which part of which lead stands where."""
    columns = {12: 4, 8: 2}.get(len(leads), 1)
    lines = -(-len(leads) // columns)
    traces = []
    for number, name in enumerate(leads):
        column, line = divmod(number, lines)
        start, end = (part * seconds / columns for part in (column, column + 1))
        traces.append(_Trace.cut(name, signal[number], rate, start, end, -_LINE_MV * line))
    if columns > 1:
        rhythm = leads.index("II") if "II" in leads else 0
        level = -_LINE_MV * lines
        traces.append(_Trace.cut(leads[rhythm], signal[rhythm], rate, 0.0, seconds, level))
    return traces


@dataclass(frozen=True)
class _Trace:
    """A lead as it is drawn: times (s) and heights (mV) on the paper, its zero at ``level``."""

    name: str
    times: np.ndarray
    millivolts: np.ndarray
    level: float

    @classmethod
    def cut(
        cls, name: str, lead: np.ndarray, rate: float, start: float, end: float, level: float
    ) -> "_Trace":
        """The lead from ``start`` to ``end``; its median over the whole record is its zero."""
        part = np.arange(round(start * rate), min(round(end * rate), len(lead)))
        return cls(name, part / rate, lead[part] - np.median(lead) + level, level)


def _outwards(height: float, least: float) -> float:
    """Room for ``height`` in large squares, beyond ``least`` but not for an artefact's."""
    return min(max(np.ceil(height / 0.5) * 0.5, least), least + _ROOM_MV)


def _paper(seconds: float, bottom: float, top: float) -> tuple[Figure, Axes]:
    """Squared paper from ``bottom`` to ``top`` (mV), its axes to scale."""
    width = MM_PER_SECOND * (_MARGIN_SECONDS + seconds)
    height = MM_PER_MV * (top - bottom)
    page = width + 2 * _BORDER_MM, height + _HEAD_MM + _FOOT_MM
    figure = new_figure(page[1] / 25.4, page[0] / 25.4)
    figure.set_layout_engine("none")  # it would shrink the axes
    axis = figure.add_axes(
        (_BORDER_MM / page[0], _FOOT_MM / page[1], width / page[0], height / page[1])
    )
    axis.set(xlim=(-_MARGIN_SECONDS, seconds), ylim=(bottom, top), xticks=[], yticks=[])
    axis.set_facecolor(_PAPER)
    axis.grid(False)
    for millimetres, colour, thick in ((1, _FINE, 0.4), (5, _BOLD, 0.7)):
        _rule(axis, millimetres, colour, thick)
    for spine in axis.spines.values():
        spine.set(visible=True, color=_BOLD, linewidth=0.7)
    return figure, axis


def _rule(axis: Axes, millimetres: int, colour: str, thick: float) -> None:
    """Lines every so many millimetres, across the whole paper."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    columns = np.arange(left, right, millimetres / MM_PER_SECOND)
    rows = np.arange(bottom, top, millimetres / MM_PER_MV)
    upright = [[(x, bottom), (x, top)] for x in columns]
    level = [[(left, y), (right, y)] for y in rows]
    axis.add_collection(
        LineCollection([*upright, *level], colors=colour, linewidths=thick, zorder=0)
    )


def _draw_trace(axis: Axes, trace: _Trace) -> None:
    """The trace, its name, and the pulse (first column) or a mark (others) where it begins."""
    start, level = trace.times[0], trace.level
    axis.plot(trace.times, trace.millivolts, color=INK, linewidth=0.8)
    if start == 0:
        _draw_pulse(axis, level)
    else:
        axis.plot([start] * 2, [level - 0.4, level + 0.4], color=INK, linewidth=1.0)
    label = axis.text(start + 0.07, level + 1.0, trace.name, fontsize=9.5, fontweight="bold")
    label.set_path_effects([withStroke(linewidth=2.5, foreground=_PAPER)])


def _draw_pulse(axis: Axes, level: float) -> None:
    """1 mV for 0.2 s, in the margin before the signal."""
    rise = -_MARGIN_SECONDS + 0.08
    fall = rise + _PULSE_SECONDS
    times = [rise - 0.04, rise, rise, fall, fall, fall + 0.04]
    axis.plot(times, np.array([0, 0, 1, 1, 0, 0]) + level, color=INK, linewidth=1.0)


def _write(figure: Figure, title: str, scale: str) -> None:
    """The title over the paper, its scale below."""
    width, height = (25.4 * side for side in figure.get_size_inches())
    left = _BORDER_MM / width
    figure.text(left, 1 - 4 / height, title, va="top", fontsize=11, fontweight="bold")
    figure.text(left, (_FOOT_MM - 2) / height, scale, va="top", fontsize=9, color=FAINT)
