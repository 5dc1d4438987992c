"""Figures of a training run: rewards, accuracy by domain, groups without signal, health."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from qoq_lib.domains import DOMAINS, PALETTE, domain_order
from qoq_lib.evaluation.curves import groups, per_step, smoothed
from qoq_lib.evaluation.plots.theme import (
    FAINT,
    INK,
    SERIES,
    PlotError,
    legend_below,
    panels,
    step_axis,
    titled,
    trend,
)

COMPONENTS = {
    "reward_accuracy": "accuracy",
    "reward_iou": "IoU with the lesion",
    "reward_format": "format",
    "reward_length": "length",
}
HEALTH = {
    "entropy": ("Entropy of the policy", "nats a token"),
    "completions/mean_length": ("Length of completions", "tokens"),
    "kl": ("KL to the reference policy", "nats a token"),
    "clip_ratio/region_mean": ("Clipped tokens", "share of tokens"),
}


def alignment_loss(log: pd.DataFrame) -> Figure:
    """Loss of the alignment phases over steps, a panel each.

    ``log`` has the columns ``phase``, ``step`` and ``loss``, as ``training.align.align`` returns.
    """
    phases = list(log["phase"].unique())
    figure, axes = panels(len(phases), columns=2, height=3.0)
    for axis, phase in zip(axes, phases, strict=False):
        part = log[log["phase"] == phase]
        axis.plot(part["step"], part["loss"], color=INK)
        axis.set(title=phase.capitalize(), ylabel="loss (nats)", yscale="log")
        step_axis(axis)
    return titled(figure, f"Alignment (n = {len(log)} readings, one every ten steps)")


def reward_curves(rollouts: pd.DataFrame, window: int = 10) -> Figure:
    """Mean reward over steps, total beside its components; smooth over faint raw values.

    ``rollouts`` as ``training.rollouts.read_rollouts`` gives them; ``window`` in steps.
    """
    parts = [name for name in COMPONENTS if name in rollouts and rollouts[name].notna().any()]
    steps = per_step(rollouts, ["reward", *parts])
    figure, (total, split) = panels(2, columns=2, height=3.4)
    trend(total, steps["reward"], smoothed(steps["reward"], window), INK, "total reward")
    for name, colour in zip(parts, SERIES, strict=False):
        trend(split, steps[name], smoothed(steps[name], window), colour, COMPONENTS[name])
    total.set(title="Total", ylabel="mean reward")
    split.set(title="Components", ylabel="mean reward (before weighting)")
    for axis in (total, split):
        step_axis(axis)
    legend_below(figure, split)
    return titled(figure, f"Reward over training ({_extent(rollouts)}, {_window(window)})")


def domain_rewards(rollouts: pd.DataFrame, window: int = 10) -> Figure:
    """Share of correct rollouts over steps, one panel per domain, the mean of all in grey."""
    rollouts = rollouts.assign(correct=rollouts["correct"].astype(float))
    domains = domain_order(list(rollouts["domain"].unique()))
    everyone = smoothed(per_step(rollouts, ["correct"])["correct"], window)
    figure, axes = panels(len(domains), sharex=True, sharey=True, height=1.9)
    for axis, domain in zip(axes, domains, strict=True):
        rows = rollouts[rollouts["domain"] == domain]
        raw = per_step(rows, ["correct"])["correct"]
        axis.plot(everyone.index, everyone.to_numpy(float), color=FAINT, linewidth=1.2)
        trend(axis, raw, smoothed(raw, window), PALETTE[domain])
        axis.set_title(f"{DOMAINS[domain].title} (n = {len(rows):,})")
        axis.set_ylim(-0.02, 1.02)
        axis.yaxis.set_major_formatter(PercentFormatter(1))
        step_axis(axis, ticks=5)
        axis.set_xlabel("")
    figure.supxlabel("optimiser step", fontsize=9)
    figure.supylabel("correct rollouts", fontsize=9)
    return titled(
        figure, f"Correct rollouts by domain ({_window(window)}; grey: all domains together)"
    )


def signal_share(rollouts: pd.DataFrame, window: int = 10) -> Figure:
    """Share of groups whose rollouts all got the same reward, and whether they were right."""
    table = groups(rollouts)
    names = {
        "without_signal": ("without signal", INK),
        "all_correct": ("of these: all rollouts correct", SERIES[2]),
        "none_correct": ("of these: no rollout correct", SERIES[3]),
    }
    steps = per_step(table, list(names)).astype(float)
    figure, (axis,) = panels(1, height=3.0)
    for name, (label, colour) in names.items():
        trend(axis, steps[name], smoothed(steps[name], window), colour, label)
    axis.set(ylabel="share of groups", ylim=(-0.02, 1.02))
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    step_axis(axis, ticks=8)
    legend_below(figure, axis)
    return titled(
        figure, f"Groups without signal ({len(table):,} groups of rollouts, {_window(window)})"
    )


def training_health(log: pd.DataFrame, window: int = 10) -> Figure:
    """Entropy, completion length, KL and clipping over steps: those of them that ``log`` has.

    ``log`` is the trainer's log, a row per optimiser step. ``PlotError`` when it has none of them.
    """
    names = [name for name in HEALTH if name in log and log[name].notna().any()]
    if not names:
        raise PlotError(f"The training log has none of the columns {', '.join(HEALTH)}.")
    steps = per_step(log, names)
    figure, axes = panels(len(names), columns=2, height=2.2)
    for axis, name, colour in zip(axes, names, SERIES, strict=False):
        trend(axis, steps[name].dropna(), smoothed(steps[name], window), colour)
        title, unit = HEALTH[name]
        axis.set(title=title, ylabel=unit)
        step_axis(axis)
    return titled(figure, f"Training health ({len(steps):,} logged steps, {_window(window)})")


def _extent(rollouts: pd.DataFrame) -> str:
    return f"{rollouts['step'].nunique():,} steps, {len(rollouts):,} rollouts"


def _window(window: int) -> str:
    return f"mean of {window} steps" if window > 1 else "each step"
