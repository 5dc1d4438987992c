"""What may leave the machine: the ``release`` fields of the data cards, put to a release.

``none`` never leaves; ``gated`` leaves only to a repository with a gate, whose text holds the
sources' terms; a data set without a card is treated as ``none``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qoq_lib.data.cards import Card, Share, load_cards
from qoq_lib.runs import OneSentenceError

What = Literal["weights", "traces", "images"]


@dataclass(frozen=True)
class Verdict:
    """Whether something made from one data set may be released, and why.

    Attributes:
        dataset: value of the rows' ``dataset`` column.
        what: what is to be released.
        share: what the data card allows; ``none`` without a card.
        allowed: whether this release may hold it.
        license: the licence as the card names it; ``None`` without a card.
        terms: link to the owner's terms, where the card knows one.
        reason: in words, from the card.
        gated: whether the repository it was judged for has a gate.
    """

    dataset: str
    what: What
    share: Share
    allowed: bool
    license: str | None
    terms: str | None
    reason: str
    gated: bool = False


MEDIA = frozenset({"images", "mask", "ecg"})
"""Columns that hold a patient's own images and signals."""


class PolicyError(OneSentenceError, RuntimeError):
    """Something that may not leave would have left; ``verdicts`` is the table of reasons."""

    def __init__(self, message: str, verdicts: tuple[Verdict, ...]) -> None:
        super().__init__(message)
        self.verdicts = verdicts


def judge(
    datasets: Iterable[str], what: What, *, gated: bool, cards: Path | None = None
) -> tuple[Verdict, ...]:
    """A verdict per data set, in the order of their names.

    Args:
        datasets: values of the rows' ``dataset`` column.
        what: ``weights`` or ``traces`` made from them, or their own ``images`` and signals.
        gated: whether the repository has a gate.
        cards: folder of the data cards; the project's own by default.

    Raises:
        CardError: a card is wrong.
    """
    speaks = {name: card for card in load_cards(cards).values() for name in card.datasets}
    return tuple(_verdict(name, what, gated, speaks.get(name)) for name in sorted(set(datasets)))


def _verdict(dataset: str, what: What, gated: bool, card: Card | None) -> Verdict:
    if card is None:
        reason = f"No data card speaks for it: write data_cards/{dataset}.md."
        return Verdict(dataset, what, "none", False, None, None, reason, gated)
    share: Share = getattr(card.release, what)
    allowed = share == "open" or share == "gated" and gated
    reason, terms = card.release.reason, card.terms
    return Verdict(dataset, what, share, allowed, card.license, terms, reason, gated)


def require(verdicts: Iterable[Verdict]) -> None:
    """Refuse a release that holds what may not leave.

    Raises:
        PolicyError: naming the data sets, and what to do.
    """
    verdicts = tuple(verdicts)
    never = [one.dataset for one in verdicts if not one.allowed and one.share == "none"]
    gate = [one.dataset for one in verdicts if not one.allowed and one.share == "gated"]
    if not never and not gate:
        return
    kind = verdicts[0].what
    said = [f"{kind} of {', '.join(never)} may not leave this machine: leave them out"] * bool(
        never
    )
    said += [
        f"{kind} of {', '.join(gate)} may go to a gated repository only: release with gated=True, "
        "or leave them out"
    ] * bool(gate)
    message = "; ".join(said)
    raise PolicyError(f"{message[0].upper()}{message[1:]}.", verdicts)


def policy_table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """The table of reasons, a row per data set."""
    rows = {
        one.dataset: {
            "share": one.share,
            "in this release": "yes" if one.allowed else "no",
            "licence": one.license,
            "reason": one.reason,
        }
        for one in verdicts
    }
    columns = ["share", "in this release", "licence", "reason"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def gate_text(verdicts: Iterable[Verdict]) -> str:
    """What the gate of a repository says: the terms of each gated source; empty without a gate."""
    verdicts = tuple(verdicts)
    gated = {one.dataset: one for one in verdicts if one.allowed and one.share == "gated"}
    if not gated and any(one.gated for one in verdicts):
        return (
            "The owners of this repository wish to know who uses it. By asking for access you "
            "agree not to try to identify anybody."
        )
    if not gated:
        return ""
    lines = [
        f"- {name}: {one.license}" + (f" ({one.terms})" if one.terms else "") + "."
        for name, one in gated.items()
    ]
    return "\n".join(
        [
            "This repository holds what was made from data under terms of their owners. By asking "
            "for access you accept these terms for your own use, and agree not to pass the files "
            "on and not to try to identify anybody:",
            "",
            *lines,
        ]
    )


def datasets_in(folder: Path) -> dict[str, int]:
    """Rows by data set over all parquet files below ``folder`` that have a ``dataset`` column."""
    counts: dict[str, int] = {}
    for path in sorted(Path(folder).rglob("*.parquet")):
        for name, rows in dataset_counts(path).items():
            counts[name] = counts.get(name, 0) + rows
    return counts


def dataset_counts(path: Path) -> dict[str, int]:
    """Rows by data set of one parquet file; empty where it has no such column."""
    if "dataset" not in pq.read_schema(path).names:
        return {}
    column = pq.read_table(path, columns=["dataset"])["dataset"]
    return {str(one["values"]): one["counts"] for one in pc.value_counts(column).to_pylist()}


def datasets_with_media(folder: Path) -> set[str]:
    """The data sets of rows below ``folder`` that hold images, a mask or an ECG themselves."""
    found: set[str] = set()
    for path in sorted(Path(folder).rglob("*.parquet")):
        names = set(pq.read_schema(path).names)
        for name in MEDIA & names if "dataset" in names else ():
            for part in pq.ParquetFile(path).iter_batches(256, columns=["dataset", name]):
                holds = pc.is_valid(part[name])
                if pa.types.is_list(part[name].type):
                    holds = pc.greater(pc.fill_null(pc.list_value_length(part[name]), 0), 0)
                found |= set(part["dataset"].filter(holds).to_pylist())
    return found


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several counts by name."""
    added: dict[str, int] = {}
    for one in counts:
        for name, rows in one.items():
            added[name] = added.get(name, 0) + rows
    return added
