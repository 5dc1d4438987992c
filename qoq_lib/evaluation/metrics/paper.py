r"""Answers as the paper's released evaluation reads them, to reproduce its numbers.

Its rules, which ``qoq_lib.answers`` does not share: the first ``\boxed{...}`` counts, up to its
first closing brace; without one, the first square brackets, and without those the whole text. What
stands there is divided at the first of five separators that occurs in it, also inside a label, and
compared letter by letter. The true labels are divided in the same way.
"""

import re
from collections.abc import Sequence

import pandas as pd

_BOXED, _BRACKETS = re.compile(r"\\boxed\{([^}]*)\}"), re.compile(r"\[(.*?)\]")
_SEPARATORS = (", ", " and ", " & ", ",", "&")


def paper_labels(completion: str) -> tuple[str, ...]:
    """The labels of a completion; none where it says ``None``."""
    found = _BOXED.search(completion) or _BRACKETS.search(completion)
    said = found.group(1) if found else completion
    return () if said == "None" else divided(said)


def divided(text: str) -> tuple[str, ...]:
    r"""The labels of a text, divided at the first separator that it holds."""
    text = text.replace("\\boxed{", "").replace("}", "")
    separator = next((mark for mark in _SEPARATORS if mark in text), None)
    return (
        tuple(sorted({part.strip() for part in text.split(separator)}))
        if separator
        else (text.strip(),)
    )


def paper_sets(table: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """True, said and listed labels of each row, as columns of label sets."""

    def joined(labels: Sequence[str]) -> tuple[str, ...]:
        return divided(", ".join(labels))

    return (
        table["answers"].map(joined),
        table["completion"].map(paper_labels),
        table["options"].map(joined),
    )
