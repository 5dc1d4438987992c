"""Figures of scores: models with their intervals beside the trivial floors, and subgroups."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qoq_lib.domains import DOMAINS
from qoq_lib.evaluation.metrics import FLOORS
from qoq_lib.evaluation.plots.theme import (
    FAINT,
    INK,
    PlotError,
    legend_below,
    new_figure,
    panels,
    short,
    titled,
)
from qoq_lib.evaluation.report import basis, by_dataset, by_domain

_EARLIER = ("s", "D", "^", "v", "P", "X")
_COLOURS = {domain.title: domain.colour for domain in DOMAINS.values()} | {"Overall": INK}


def score_chart(scores: Mapping[str, Mapping[str, Any]], by_set: bool = False) -> Figure:
    """Macro-F1 of each model with its 95 % interval, a line per domain or per data set.

    The last model has the domain's colour, earlier ones are hollow. The grey bar ends at the best
    of the three floors, whose ends are ticks: what lies inside is no skill.

    Args:
        scores: ``metrics.evaluate`` of each model's predictions.
        by_set: whether lines are data sets; ``PlotError`` where they would be the domains again.

    Raises:
        PlotError: also where no question has options to choose from.
    """
    if not any("macro_f1" in score["overall"] for score in scores.values()):
        raise PlotError("No question has options to choose from: there is no macro-F1 to draw.")
    if by_set and len(by_dataset(scores)) == len(by_domain(scores)) - 1:
        raise PlotError("Every domain has one data set: the figure above is theirs too.")
    lines = by_dataset(scores) if by_set else by_domain(scores)
    figure = new_figure(0.42 * len(lines) + 1.6)
    axis = figure.add_subplot()
    place = np.arange(len(lines), dtype=float)
    if not by_set:
        place[-1] += 0.4  # the mean of the domains stands apart from them
    for height, (title, parts) in zip(place, lines.items(), strict=True):
        _draw_floors(axis, height, next(reversed(parts.values()))["floors"])
        _draw_models(axis, height, parts, _COLOURS[title.partition(":")[0]], list(scores)[-1])
    names = [
        f"{short([title], 44, 1)}  (n = {basis(parts, 'macro_f1')['n']:,})"
        for title, parts in lines.items()
    ]
    axis.set_yticks(place, names)
    axis.set(xlabel="macro-F1", xlim=(-0.01, 1.01), ylim=(place[-1] + 0.55, -0.55))
    axis.grid(False, axis="y")
    _legend(figure, axis, list(scores))
    what = "data set" if by_set else "domain"
    return titled(figure, f"Macro-F1 on the test split by {what} (95 % intervals over patients)")


def _draw_floors(axis: Axes, height: float, floors: Mapping[str, float]) -> None:
    axis.barh(height, max(floors.values(), default=0), 0.62, color="#E6E6E6", zorder=1)
    for value in (floors[name] for name in FLOORS if name in floors):
        axis.plot([value] * 2, [height - 0.31, height + 0.31], color=FAINT, linewidth=1.1, zorder=2)


def _draw_models(
    axis: Axes, height: float, parts: Mapping[str, Mapping[str, Any]], colour: str, last: str
) -> None:
    """The models one below the other, within the line's height."""
    shifts = np.linspace(-0.2, 0.2, len(parts)) if len(parts) > 1 else [0.0]
    for number, ((name, own), shift) in enumerate(zip(parts.items(), shifts, strict=True)):
        final = name == last
        marker = "o" if final else _EARLIER[number % len(_EARLIER)]
        edge = colour if final else "#6E6E6E"
        if bounds := own["intervals"].get("macro_f1"):
            axis.plot(bounds, [height + shift] * 2, color=edge, linewidth=1.8 if final else 1.0)
        dots = axis.scatter(
            own.get("macro_f1", np.nan), height + shift, s=42 if final else 22, marker=marker
        )
        dots.set(facecolor=colour if final else "white", edgecolor=edge, zorder=4, clip_on=False)


def _legend(figure: Figure, axis: Axes, models: list[str]) -> None:
    """The models' markers and the floors' bar, once for all lines."""
    for number, name in enumerate(models):
        final = number == len(models) - 1
        marker = "o" if final else _EARLIER[number % len(_EARLIER)]
        edge = INK if final else "#6E6E6E"
        dots = axis.scatter([], [], s=42 if final else 22, marker=marker, label=name)
        dots.set(facecolor=INK if final else "white", edgecolor=edge)
    axis.barh([0], [0], color="#E6E6E6", label="up to the best trivial floor (ticks: the three)")
    legend_below(figure, axis, columns=4)


def subgroup_chart(scores: Mapping[str, Any], measure: str = "macro_f1") -> Figure:
    """One overall score by sex and by age band, with 95 % intervals over patients.

    ``scores`` are of one model; a group whose rows cannot tell the score has no point.
    ``PlotError`` where the rows tell neither sex nor age, or no group has the score.
    """
    kinds = scores["subgroups"]
    if not kinds:
        raise PlotError("The predictions tell neither sex nor age: predict with them again.")
    if measure not in scores["overall"]:
        raise PlotError(
            f"The questions tell no {_said(measure)}: there is nothing to draw of subgroups."
        )
    figure, axes = panels(len(kinds), columns=2, height=2.8, sharey=True)
    whole = scores["overall"][measure]
    for axis, (kind, found) in zip(axes, kinds.items(), strict=True):
        for place, own in enumerate(group["overall"] for group in found["groups"].values()):
            if bounds := own["intervals"].get(measure):
                axis.plot([place] * 2, bounds, color=INK, linewidth=1.6)
            axis.scatter(place, own.get(measure, np.nan), s=46, color=INK, zorder=3)
        counts = [group["overall"]["rows"].get(measure, 0) for group in found["groups"].values()]
        names = [f"{name}\nn = {n:,}" for name, n in zip(found["groups"], counts, strict=True)]
        axis.axhline(whole, color=FAINT, linewidth=1.0, linestyle="--")
        axis.set_xticks(range(len(names)), names)
        axis.set(title=f"By {kind}", xlim=(-0.6, len(names) - 0.4), ylim=(0, 1))
        axis.grid(False, axis="x")
    axes[0].set_ylabel(_said(measure))
    return titled(figure, "Subgroups of patients (95 % intervals; dashed: all patients)")


def _said(measure: str) -> str:
    return measure.replace("_", " ").replace("macro f1", "macro-F1")
