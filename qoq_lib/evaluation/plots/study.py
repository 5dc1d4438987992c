"""Figures of a study: differences to a baseline, domains, rare against common, learning curves."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from qoq_lib.domains import DOMAINS
from qoq_lib.evaluation.plots.theme import (
    FAINT,
    INK,
    MODEL_COLOURS,
    SERIES,
    PlotError,
    legend_below,
    new_figure,
    panels,
    step_axis,
    titled,
)
from qoq_lib.evaluation.study.scoring import COMMON, GAP, OVERALL, RARE
from qoq_lib.evaluation.study.statistics import mean_interval
from qoq_lib.evaluation.study.wording import questions_text

# The arms that most studies have look alike in all of them; others take what is left, in order.
FIXED = ("grpo", "drpo", "grpo_balanced", "drpo_paper")
MARKERS = "osD^vPX<>ph*"
METRIC_NAMES = {"macro_f1": "macro-F1", "box_iou": "IoU"}
FLOORS = {
    "macro_f1": {
        "floor_all_options": "all options listed",
        "floor_constant": "best constant answer",
    },
    "box_iou": {"floor_constant_box": "one box for all patients"},
}


def arm_styles(arms: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each arm; the untrained start is grey."""
    others = [name for name in arms if name not in (*FIXED, "untrained")]
    order = {name: number for number, name in enumerate([*FIXED, *others])}
    styles = {n: (SERIES[k % len(SERIES)], MARKERS[k % len(MARKERS)]) for n, k in order.items()}
    return {name: styles.get(name, (MODEL_COLOURS["untrained"], "d")) for name in arms}


def study_differences(comparison: pd.DataFrame, baseline: str) -> Figure:
    """Forest plot: macro-F1 of each arm minus that of ``baseline``, greedy and sampled answers.

    ``comparison`` as ``study.comparing.comparison_table``. The thick line is the t interval over
    seeds, the thin one the bootstrap's.
    """
    chosen = _versus(comparison, baseline)
    overall = chosen[chosen["domain"] == OVERALL]
    parts = {f"{name} answers": rows for name, rows in overall.groupby("decoding", sort=False)}
    title = f"Macro-F1 minus that of {baseline}, paired by seed, 95 % intervals"
    return _forest(parts, title)


def study_tail(comparison: pd.DataFrame, baseline: str, decoding: str = "greedy") -> Figure:
    """Forest plot: the same differences in the rare domains, the others, and between these two."""
    chosen = _versus(comparison, baseline)
    chosen = chosen[chosen["decoding"] == decoding]
    titles = {"rare domains": RARE, "common domains": COMMON, GAP: GAP}
    parts = {title: chosen[chosen["domain"] == group] for title, group in titles.items()}
    title = f"Macro-F1 minus that of {baseline} by rarity, {decoding} answers, 95 % intervals"
    return _forest({name: rows for name, rows in parts.items() if len(rows)}, title)


def _versus(comparison: pd.DataFrame, baseline: str) -> pd.DataFrame:
    rows = comparison[(comparison["baseline"] == baseline) & (comparison["metric"] == "macro_f1")]
    if rows.empty:
        raise PlotError(f"The study compares no arm with {baseline!r}: name one of its baselines.")
    return rows


def _forest(parts: Mapping[str, pd.DataFrame], title: str) -> Figure:
    arms = list(next(iter(parts.values()))["arm"])
    figure = new_figure(0.34 * len(arms) + 1.7)
    axes = figure.subplots(1, len(parts), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, rows) in zip(axes, parts.items(), strict=True):
        _draw_intervals(axis, rows.set_index("arm").loc[arms])
        axis.set(title=name, xlabel="difference in macro-F1")
    axes[0].set_yticks(range(len(arms)), arms)
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    legend_below(figure, axes[0], columns=3)
    seeds = int(next(iter(parts.values()))["seeds"].min())
    return titled(figure, f"{title} (n = {seeds} seeds)")


def _draw_intervals(axis: Axes, rows: pd.DataFrame) -> None:
    place = np.arange(len(rows), dtype=float)
    axis.axvline(0, color=FAINT, linewidth=1)
    low, high = rows["low"], rows["high"]
    axis.hlines(place, low, high, color=SERIES[0], linewidth=3, label="interval over seeds")
    low, high = rows["patients_low"], rows["patients_high"]
    label = "bootstrap of seeds and patients"
    axis.hlines(place + 0.22, low, high, color=SERIES[1], linewidth=1.4, label=label)
    axis.scatter(rows["difference"], place, color=INK, s=26, zorder=3, label="mean difference")
    axis.grid(False, axis="y")


def study_domains(
    results: pd.DataFrame,
    train_rows: pd.Series,
    arms: Sequence[str],
    decoding: str = "greedy",
    metric: Literal["macro_f1", "box_iou"] = "macro_f1",
) -> Figure:
    """``metric`` by domain and arm, mean over seeds with its t interval; rarest domain at the end.

    ``results`` as ``study.scoring.results_table``, ``train_rows`` as ``study.scoring.domain_rows``.
    Domains without the metric are left out. The grey marks are floors of answers that look at
    nothing: listing every option, the best constant answer, one box for all patients.
    """
    chosen = results[(results["decoding"] == decoding) & results["domain"].isin(train_rows.index)]
    told = set(chosen[chosen["metric"] == metric]["domain"])
    if not told:
        raise PlotError(f"The study has no {METRIC_NAMES[metric]}: its answers were not asked for.")
    ordered = train_rows.sort_values(ascending=False, kind="stable").index
    domains = [name for name in ordered if name in told]
    figure = new_figure(0.16 * len(domains) * (len(arms) + 1) + 1.4)
    axis = figure.add_subplot()
    width, styles = 0.8 / max(len(arms), 1), arm_styles(arms)
    for number, arm in enumerate(arms):
        own = chosen[(chosen["arm"] == arm) & (chosen["metric"] == metric)]
        values = [mean_interval(own[own["domain"] == name]["value"].to_numpy()) for name in domains]
        place = np.arange(len(domains)) + (number - (len(arms) - 1) / 2) * width
        (colour, marker), means = styles[arm], [value.mean for value in values]
        axis.hlines(place, *_ends(values), color=colour, linewidth=1.8)
        axis.scatter(means, place, color=colour, s=30, marker=marker, label=arm, zorder=3)
    _draw_floors(axis, chosen, domains, metric)
    names = [f"{DOMAINS[name].title}\n{train_rows[name]:.0f} training rows" for name in domains]
    axis.set_yticks(range(len(domains)), names, fontsize=8)
    axis.set(xlabel=METRIC_NAMES[metric], xlim=(0, 1), ylim=(len(domains) - 0.5, -0.5))
    axis.grid(False, axis="y")
    legend_below(figure, axis, columns=4)
    seeds, questions = chosen["seed"].nunique(), questions_text(results, metric)
    what = f"{METRIC_NAMES[metric][0].upper()}{METRIC_NAMES[metric][1:]} by domain"
    title = f"{what}, {decoding} answers, 95 % intervals inside 0 to 1"
    return titled(figure, f"{title} (n = {seeds} seeds x {questions} questions)")


def _draw_floors(axis: Axes, chosen: pd.DataFrame, domains: Sequence[str], metric: str) -> None:
    place = np.arange(len(domains))
    for (floor, label), line in zip(FLOORS[metric].items(), (":", "-"), strict=False):
        floors = chosen[chosen["metric"] == floor].groupby("domain")["value"].mean()
        ends = (place - 0.45, place + 0.45)
        axis.vlines(floors[domains], *ends, color=FAINT, linestyle=line, label=f"floor: {label}")


def _ends(values: Sequence) -> tuple[list[float], list[float]]:
    """Ends of the intervals inside the scale of 0 to 1, as the title says."""
    return [max(value.low, 0.0) for value in values], [min(value.high, 1.0) for value in values]


def study_curves(curves: pd.DataFrame, baseline: str, window: int = 10) -> Figure:
    """Share of correct rollouts over training, one panel per arm, ``baseline`` in grey in each.

    ``curves`` as ``study.scoring.curves_table``. A point is the unweighted mean over the domains
    asked in ``window`` steps; the line is the mean over seeds, the band reaches from the lowest to
    the highest.
    """
    arms = list(dict.fromkeys(curves["arm"]))
    if not arms:
        raise PlotError("No arm of this study has rollouts: there are no learning curves to draw.")
    lines = {arm: binned(curves[curves["arm"] == arm], window) for arm in arms}
    figure, axes = panels(len(arms), columns=2 if len(arms) < 5 else 3, sharex=True, sharey=True)
    for axis, arm in zip(axes, arms, strict=True):
        if baseline in lines:
            axis.plot(lines[baseline].mean(axis=1), color=FAINT, linewidth=1.2)
        line = lines[arm]
        axis.plot(line.mean(axis=1), color=INK)
        axis.fill_between(
            line.index, line.min(axis=1), line.max(axis=1), color=SERIES[0], alpha=0.3, linewidth=0
        )
        axis.set_title(f"{arm} (n = {line.shape[1]} seeds)")
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        step_axis(axis, ticks=5)
        axis.set_xlabel("")
    figure.supxlabel("optimiser step", fontsize=9)
    figure.supylabel("correct rollouts", fontsize=9)
    what = f"means of {window} steps over domains; band: lowest to highest seed; grey: {baseline}"
    return titled(figure, f"Learning curves ({what})")


def binned(curve: pd.DataFrame, window: int) -> pd.DataFrame:
    """Share of correct rollouts, unweighted over domains: middle of the bin x seed."""
    curve = curve.assign(
        bin=(curve["step"] - 1) // window * window + (window + 1) / 2,
        right=curve["correct"] * curve["rollouts"],
    )
    sums = curve.groupby(["seed", "bin", "domain"])[["right", "rollouts"]].sum()
    share = (sums["right"] / sums["rollouts"]).groupby(["seed", "bin"]).mean()
    return share.unstack("seed")
