"""Pieces of Markdown, as the Hub renders it."""

from typing import Any

import pandas as pd

from qoq_lib.evaluation.tables import cell_text


def section(title: str, *paragraphs: str) -> str:
    """A heading of the second level and what stands under it; empty paragraphs are left out."""
    return "\n\n".join([f"## {title}", *filter(None, paragraphs)])


def table(frame: pd.DataFrame, index: str | None = None) -> str:
    """A frame as a Markdown table; its index is the first column where ``index`` names it."""
    if index is not None:
        frame = frame.rename_axis(index).reset_index()
    head = [str(name) for name in frame.columns]
    lines = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    rows = [[_cell(name) for name in head], ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fence(text: str, language: str) -> str:
    """A block of code."""
    return f"```{language}\n{text}\n```"


def _cell(value: Any) -> str:
    return cell_text(value).replace("|", "\\|").replace("\n", " ")
