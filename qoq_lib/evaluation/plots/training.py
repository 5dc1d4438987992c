"""Figures of training runs: rewards, domains, groups without signal, health, temperatures.

Each takes one run or several (``evaluation.training_runs``); runs of one method are one line with a
band from the lowest to the highest of them. ``window`` is that of the moving mean, in steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from qoq_lib.evaluation.curves import (
    MEASURES,
    By,
    band,
    missing_measures,
    parts,
    per_step,
    rows_of,
)
from qoq_lib.evaluation.plots.theme import (
    FAINT,
    INK,
    SERIES,
    PlotError,
    legend_below,
    log_axis,
    panels,
    step_axis,
    titled,
    wrapped,
)
from qoq_lib.evaluation.training_runs import TrainingRun, arms

REWARDS = ("reward", "accuracy", "iou", "format", "length")
SIGNAL = ("without_signal", "all_correct", "none_correct")
HEALTH = ("entropy", "kl", "clipped", "tokens", "cut")
SCALING = ("domain_temperature", "cluster_temperature", "weight")
_DASHES = ("-", "--", ":")


def alignment_loss(log: pd.DataFrame) -> Figure:
    """Loss of the alignment phases over steps, a panel each.

    ``log`` has the columns ``phase``, ``step`` and ``loss``, as ``training.align.align`` returns.
    """
    phases = list(log["phase"].unique())
    figure, axes = panels(len(phases), columns=2, height=3.0)
    for axis, phase in zip(axes, phases, strict=False):
        part = log[log["phase"] == phase]
        axis.plot(part["step"], part["loss"], color=INK)
        axis.set(title=phase.capitalize(), ylabel="loss (nats)")
        log_axis(axis)
        step_axis(axis)
    return titled(figure, f"Alignment (n = {len(log)} readings, one every ten steps)")


def reward_curves(runs: Sequence[TrainingRun], window: int = 10) -> Figure:
    """Total reward over steps, and each of its components."""
    return _measure_panels(runs, REWARDS, window, "Reward")


def signal_share(runs: Sequence[TrainingRun], window: int = 10) -> Figure:
    """Share of groups whose rollouts all got the same reward, and whether they were right."""
    return _measure_panels(runs, SIGNAL, window, "Groups without signal")


def training_health(runs: Sequence[TrainingRun], window: int = 10) -> Figure:
    """Entropy, KL, clipping, completion length and cut completions."""
    return _measure_panels(runs, HEALTH, window, "Training health")


def reward_by(
    runs: Sequence[TrainingRun], measure: str = "correct", by: By = "domain", window: int = 10
) -> Figure:
    """One of ``curves.MEASURES`` over steps, a panel per domain or data set.

    A single line has its domain's colour, and the mean of all domains in grey behind it.
    """
    _refuse_missing(runs, [measure])
    places, kind = parts(runs, by), MEASURES[measure]
    everyone = band(runs, measure, window) if len(arms(runs)) == 1 else None
    figure, axes = panels(len(places), sharex=True, sharey=True, height=1.9)
    for axis, part in zip(axes, places, strict=True):
        if everyone is not None:
            axis.plot(everyone.index, everyone["mean"], color=FAINT, linewidth=1.2)
        _lines(axis, runs, measure, window, part.where, part.colour)
        count = sum(len(rows_of(run.rollouts, part.where)) for run in runs)
        axis.set_title(wrapped(f"{part.title} (n = {count:,})", 44, 2))
    for place, axis in enumerate(axes, start=1):  # all are drawn: they share their limits
        _frame(axis, kind.is_share)
        if place + 3 <= len(axes):  # a panel stands below
            axis.set_xlabel("")
        axis.tick_params(labelbottom=place + 3 > len(axes))
    figure.supylabel(kind.unit, fontsize=9)
    _arm_legend(figure, axes, runs)
    grey = "" if everyone is None else "; grey: all together"
    name = {"domain": "domain", "dataset": "data set"}[by]
    return titled(figure, f"{kind.title} by {name} ({_caption(runs, window)}{grey})")


def temperatures(runs: Sequence[TrainingRun], window: int = 10) -> Figure:
    """What DRPO divides by, and the factor that comes of it: a line per domain, a row per method.

    Raises ``PlotError`` when no run scaled its advantages.
    """
    scaled = [run for run in runs if run.has_temperatures]
    if not scaled:
        raise PlotError("None of these runs scaled its advantages by domain: DRPO's methods do.")
    figure, axes = panels(len(SCALING) * len(arms(scaled)), height=2.4, sharex=True)
    places = [(label, members, name) for label, members in arms(scaled).items() for name in SCALING]
    for axis, (label, members, name) in zip(axes, places, strict=True):
        for part in parts(scaled, "domain"):
            _line(axis, band(members, name, window, part.where), part.title, color=part.colour)
        kind = MEASURES[name]
        axis.set(title=f"{kind.title} ({label})", ylabel=kind.unit)
        log_axis(axis)
        step_axis(axis)
    legend_below(figure, axes[0], columns=5)
    return titled(figure, f"How advantages were scaled ({_caption(scaled, window)})")


def _measure_panels(
    runs: Sequence[TrainingRun], names: Sequence[str], window: int, title: str
) -> Figure:
    absent = _refuse_missing(runs, names)
    shown = [name for name in names if name not in absent]
    figure, axes = panels(len(shown), columns=2 if len(shown) in (2, 4) else 3, height=2.3)
    for axis, name in zip(axes, shown, strict=True):
        kind = MEASURES[name]
        _lines(axis, runs, name, window, {}, INK)
        axis.set(title=kind.title, ylabel=kind.unit)
        _frame(axis, kind.is_share)
    _arm_legend(figure, axes, runs)
    return titled(figure, f"{title} ({_caption(runs, window)})")


def _refuse_missing(runs: Sequence[TrainingRun], names: Sequence[str]) -> list[str]:
    """Those of ``names`` that no run has; ``PlotError`` when that is all of them."""
    absent = missing_measures(runs, names)
    if len(absent) == len(names):
        raise PlotError(
            f"Run {', '.join(run.run_id for run in runs)} has no value of {', '.join(names)}."
        )
    return absent


def _lines(
    axis: Axes,
    runs: Sequence[TrainingRun],
    measure: str,
    window: int,
    where: Mapping[str, str],
    colour: str,
) -> None:
    """A line per method; ``colour`` is for one alone, and a single run shows its raw values."""
    lines = arms(runs)
    if len(runs) == 1:
        raw = per_step(runs[0], measure, where)
        axis.plot(raw.index, raw, color=colour, alpha=0.35, linewidth=0.8)
    for number, (label, members) in enumerate(lines.items()):
        turn, place = divmod(number, len(SERIES))
        look = {
            "color": SERIES[place] if len(lines) > 1 else colour,
            "linestyle": _DASHES[turn % 3],
        }
        _line(axis, band(members, measure, window, where), label, **look)


def _line(axis: Axes, curve: pd.DataFrame, label: str, **look: Any) -> None:
    if curve.empty:
        return
    marker = "o" if len(curve) == 1 else None
    axis.plot(curve.index, curve["mean"], label=label, marker=marker, **look)
    if (curve["high"] > curve["low"]).any():
        shade = {"color": look["color"], "alpha": 0.2, "linewidth": 0}
        axis.fill_between(curve.index, curve["low"], curve["high"], **shade)


def _frame(axis: Axes, is_share: bool) -> None:
    step_axis(axis, ticks=5)
    if is_share:
        top = max(axis.get_ylim()[1], 0.05)
        axis.set_ylim(-0.02 * top, top)
        axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    elif axis.dataLim.height == 0:  # else a flat line looks like one of five digits
        axis.set_ylim(axis.dataLim.y0 - 0.02, axis.dataLim.y0 + 1)


def _arm_legend(figure: Figure, axes: Sequence[Axes], runs: Sequence[TrainingRun]) -> None:
    if len(arms(runs)) > 1:
        fullest = max(axes, key=lambda axis: len(axis.lines))  # a method may lack a measure
        legend_below(figure, fullest, columns=4)


def _caption(runs: Sequence[TrainingRun], window: int) -> str:
    """How many rollouts, how smooth, and what the bands are."""
    count = sum(len(run.rollouts) for run in runs)
    smooth = f"mean of {window} steps" if window > 1 else "each step"
    most = max(map(len, arms(runs).values()))
    bands = f"; band: lowest to highest of {most} runs" if most > 1 else ""
    return f"n = {count:,} rollouts, {smooth}{bands}"
