"""The look that all figures share, and the small parts they are made of."""

import textwrap
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from qoq_lib.domains import DOMAINS
from qoq_lib.runs import OneSentenceError

WIDTH = 10.0
"""Width of a figure in inches: a JupyterLab cell at 100 dots per inch."""

INK, FAINT = "#222222", "#8A8A8A"
MODEL_COLOURS = {"untrained": "#C4C4C4", "aligned": "#7FA8D9", "trained": "#1B4F91"}
SERIES = sns.color_palette("colorblind").as_hex()


class PlotError(OneSentenceError, ValueError):
    """A figure cannot be drawn from what was given; the message says what is missing."""


def use_theme() -> None:
    """Set seaborn's theme for all figures of a notebook.

    Faces are white whatever JupyterLab's theme, so that dark text never stands on a dark page.
    """
    size = {"font.size": 10, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 9}
    small = {"xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "figure.titlesize": 12}
    white = {"figure.facecolor": "white", "savefig.facecolor": "white", "axes.facecolor": "white"}
    lines = {"grid.color": "#E3E3E3", "axes.edgecolor": FAINT, "lines.linewidth": 1.8}
    title = {"axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False}
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette="colorblind",
        rc=size | small | white | lines | title,
    )


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, sizes in inches, that no notebook backend shows a second time by itself."""
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)
    return figure


def panels(count: int, columns: int = 3, height: float = 2.3, **kwargs: Any) -> tuple[Figure, list]:
    """A figure of ``count`` axes in rows of ``columns``, each row ``height`` inches high."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(height * rows + 0.5)
    axes = list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def titled(figure: Figure, title: str) -> Figure:
    """The figure, with a title at its left edge."""
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def legend_below(figure: Figure, axis: Axes, columns: int = 6) -> None:
    """One legend below the axes, where it covers no data."""
    entries = list(zip(*axis.get_legend_handles_labels(), strict=True))
    entries.sort(key=lambda entry: not isinstance(entry[0], BarContainer))  # bars before markers
    handles, labels = zip(*entries, strict=True)
    figure.legend(handles, labels, loc="outside lower center", ncol=columns, frameon=False)


def set_title(domain: str, dataset: str, domains: Iterable[str]) -> str:
    """The domain's title, with the data set's name where several of ``domains`` are this one."""
    title = DOMAINS[domain].title
    return f"{title}: {dataset}" if list(domains).count(domain) > 1 else title


def step_axis(axis: Axes, ticks: int = 6) -> None:
    """Label the x axis with whole optimiser steps at round numbers."""
    axis.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 5, 10]))
    axis.set_xlabel("optimiser step")


def log_axis(axis: Axes) -> None:
    """A logarithmic y axis with plain numbers: 0.5, 1, 2."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def short(labels: Iterable[str], width: int, lines: int = 2) -> str:
    """Labels joined by commas, wrapped at ``width`` characters and cut after ``lines`` lines."""
    return wrapped(", ".join(labels), width, lines)


def wrapped(text: str, width: int, lines: int) -> str:
    """Text as a figure can show it: wrapped, cut with an ellipsis, in characters of its font."""
    plain = text.encode("latin-1", "replace").decode("latin-1")
    plain = "".join(letter if letter.isprintable() else " " for letter in plain)
    return textwrap.fill(
        plain, width, max_lines=lines, placeholder=" …", break_long_words=len(plain) > 4 * width
    )
