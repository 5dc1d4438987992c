"""Filters and a page turner for traces, for who sits before JupyterLab.

What it shows is what ``reading`` shows; a notebook shows that without a browser, too, so that it is
complete where nobody turns pages.
"""

from typing import Any

import ipywidgets as widgets
import pandas as pd
from IPython.display import display

from qoq_lib.evaluation.plots.theme import PlotError
from qoq_lib.evaluation.tables import table
from qoq_lib.publishing.explore import OUTCOMES, Traces, TracesError, chosen
from qoq_lib.publishing.reading import trace_figures, trace_table

_ALL = "all"
_WIDE = widgets.Layout(width="95%", max_width="60em")


class TraceBrowser:
    """``panel`` holds the controls and the trace that they choose.

    Args:
        traces: to be read.
        index: ``trace_index`` of them, or a part of it.
    """

    def __init__(self, traces: Traces, index: pd.DataFrame) -> None:
        self._traces, self._index, self._shown = traces, index, index
        low, high = float(index["reward"].min()), float(index["reward"].max())
        self.domain = _choice("domain", index)
        self.dataset = _choice("dataset", index)
        self.outcome = widgets.ToggleButtons(options=OUTCOMES, description="answer")
        self.reward = widgets.FloatRangeSlider(
            value=(low, high),
            min=low,
            max=high,
            step=max((high - low) / 100, 1e-3),
            description="reward",
            layout=_WIDE,
        )
        self.number = widgets.IntSlider(description="trace", layout=_WIDE, continuous_update=False)
        self.count = widgets.Label()
        self.page = widgets.Output()
        filters = (self.domain, self.dataset, self.outcome, self.reward)
        for control in filters:
            control.observe(lambda _: self.filter(), names="value")
        self.number.observe(lambda _: self.show(), names="value")
        self.panel = widgets.VBox([*filters, self.number, self.count, self.page])
        self.filter()

    def filter(self) -> None:
        """Choose the traces that the controls ask for, and show the first of them."""
        low, high = self.reward.value
        try:
            self._shown = chosen(
                self._index,
                domain="" if self.domain.value == _ALL else self.domain.value,
                dataset="" if self.dataset.value == _ALL else self.dataset.value,
                outcome=self.outcome.value,
                reward_from=low - 1e-6,  # the slider rounds
                reward_to=high + 1e-6,
            )
        except TracesError as reason:
            self.page.clear_output(wait=True)
            self.count.value = str(reason)
            return
        self.count.value = f"{len(self._shown):,} traces"
        self.number.max = len(self._shown) - 1
        if self.number.value:
            self.number.value = 0  # which shows it
        else:
            self.show()

    @property
    def position(self) -> int:
        """Of the trace shown, in the index."""
        return int(self._shown.index[self.number.value])

    def show(self) -> None:
        """Show the trace whose number is chosen."""
        trace = self._traces.read(self.position)
        self.page.clear_output(wait=True)
        with self.page:
            for figure in self._figures(trace):
                display(figure)
            display(table(trace_table(trace), f"Trace {self.number.value}"))

    def _figures(self, trace: dict[str, Any]) -> list[Any]:
        try:
            return list(trace_figures(self._traces, trace))
        except PlotError as reason:
            return [str(reason)]


def _choice(column: str, index: pd.DataFrame) -> widgets.Dropdown:
    names = [str(name) for name in index[column].cat.categories]
    return widgets.Dropdown(options=[_ALL, *names], description=column)
