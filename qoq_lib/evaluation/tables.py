"""Tables for notebooks: the page's own colours in JupyterLab, plain text everywhere else."""

import hashlib
import html
import math
from typing import Any

import numpy as np
import pandas as pd


class Table:
    """A captioned table with an HTML and a text form, the same bytes for the same content."""

    def __init__(self, frame: pd.DataFrame, caption: str) -> None:
        self.frame = frame
        self.caption = caption

    def __repr__(self) -> str:
        if self.frame.empty:
            return f"{self.caption}\n(no rows)"
        return f"{self.caption}\n{self.frame.map(cell_text).to_string(max_colwidth=80)}"

    def _repr_html_(self) -> str:
        if self.frame.empty:  # a table without columns squeezes its caption to one word a line
            return f"<p><b>{html.escape(self.caption)}</b><br>(no rows)</p>"
        # No colour is set, so that the table follows JupyterLab's light or dark theme.
        left, head = [("text-align", "left")], [("font-weight", "bold"), ("padding-bottom", "4px")]
        styler = self.frame.style.format(cell_text, escape="html")
        styler = styler.format_index(escape="html", axis=0).format_index(escape="html", axis=1)
        styler = styler.set_caption(self.caption).set_table_styles(
            [
                {"selector": "caption", "props": [*left, *head, ("caption-side", "top")]},
                {"selector": "td, th", "props": [*left, ("vertical-align", "top")]},
                {"selector": "td", "props": [("max-width", "60ch"), ("white-space", "pre-wrap")]},
            ]
        )
        name = hashlib.sha256(repr(self).encode()).hexdigest()[:8]
        return str(styler.set_uuid(name).to_html())


def table(frame: pd.DataFrame, caption: str) -> Table:
    """``frame`` as a notebook shows it: caption above, numbers at three significant digits.

    A missing value is shown as a dash, a list as its items.
    """
    return Table(frame, caption)


def cell_text(value: Any) -> str:
    """The text of one cell: three significant digits, but whole numbers in full."""
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(map(str, value))
    if value is None or value is pd.NA or isinstance(value, float) and math.isnan(value):
        return "–"
    if not isinstance(value, float):
        return str(value)
    if math.isfinite(value) and abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}".removesuffix(".")
