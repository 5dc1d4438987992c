"""The leak report: what a finished assembly shares between its splits, counted from its index.

It is counted from what was written, not from what the splitting meant to do. Patients and exact
copies must never be on two sides. Near-duplicates (the first image looks like one of another
patient) are counted only: a hash cannot tell a copy from two similar chests.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

COLUMNS = ("dataset", "patient_id", "split", "content", "look")
"""The columns of an index that the report needs."""


@dataclass(frozen=True)
class Leaks:
    """Counts for one data set.

    ``copies`` are rows whose images and ECG another row has byte for byte, ``near_copies`` rows
    whose first image differs in at most one bit of its difference hash from that of another
    patient's. ``..._across`` are those of them with such a row in another split.
    """

    rows: int
    patients: int
    patients_across: int
    copies: int
    copies_across: int
    near_copies: int
    near_copies_across: int


def leak_report(index: pa.Table) -> dict[str, Leaks]:
    """The leaks of every data set of an assembly's ``index``; see ``shards.INDEX_SCHEMA``."""
    names = index["dataset"].combine_chunks().dictionary_encode().dictionary.to_pylist()
    dataset, patient, split, content = (_codes(index, name) for name in COLUMNS[:4])
    near, near_across = _near_copies(index["look"], patient, split)
    patient_across, content_across = _across(patient, split), _across(content, split)
    copied = np.bincount(content)[content] > 1
    report = {}
    for code, name in enumerate(names):
        of = dataset == code
        report[name] = Leaks(
            rows=int(of.sum()),
            patients=len(np.unique(patient[of])),
            patients_across=len(np.unique(patient[of & patient_across])),
            copies=int((of & copied).sum()),
            copies_across=int((of & content_across).sum()),
            near_copies=int((of & near).sum()),
            near_copies_across=int((of & near_across).sum()),
        )
    return report


def leak_text(report: Mapping[str, Leaks]) -> str:
    """The report as lines of text, a data set each."""
    width = max(map(len, report), default=0)
    lines = [
        f"  {name:{width}}  {one.rows} rows of {one.patients} patients; on two sides: "
        f"{one.patients_across} patients, {one.copies_across} of {one.copies} copies, "
        f"{one.near_copies_across} of {one.near_copies} look-alikes"
        for name, one in report.items()
    ]
    return "\n".join(["Leak report (splits are the sides):", *lines])


def _codes(index: pa.Table, name: str) -> np.ndarray:
    """A column of strings as numbers from 0, in order of first appearance."""
    codes = index[name].combine_chunks().dictionary_encode().indices
    return codes.to_numpy(zero_copy_only=False)


def _across(group: np.ndarray, split: np.ndarray) -> np.ndarray:
    """For each row, whether its group is in more than one split."""
    pairs = np.unique(np.stack([group, split]), axis=1)
    return np.bincount(pairs[0])[group] > 1


def _near_copies(
    looks: pa.ChunkedArray, patient: np.ndarray, split: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each row, whether it looks like another patient's, and like one of another split.

    Looks one bit apart are found by asking for the 64 neighbours of each look, in a time that grows
    as the rows do, where comparing all pairs would grow as their square.
    """
    near, across = (np.zeros(len(looks), dtype=bool) for _ in range(2))
    rows = np.flatnonzero(looks.is_valid().to_numpy())
    if not len(rows):
        return near, across
    look = looks.fill_null(0).to_numpy()
    rows = rows[np.argsort(look[rows], kind="stable")]
    look, patient, split = look[rows], patient[rows], split[rows]
    known, first = np.unique(look, return_index=True)
    neighbours = np.uint64(1) << np.arange(64, dtype=np.uint64)
    for bit in (np.uint64(0), *neighbours):
        place = np.searchsorted(known, look ^ bit).clip(max=len(known) - 1)
        there = known[place] == look ^ bit
        near[rows] |= there & _differs(patient, first, place)
        across[rows] |= there & _differs(split, first, place)
    return near, near & across


def _differs(own: np.ndarray, first: np.ndarray, place: np.ndarray) -> np.ndarray:
    """For each row, whether the run at ``place`` of those from ``first`` on holds another value."""
    least, most = np.minimum.reduceat(own, first), np.maximum.reduceat(own, first)
    return (least[place] != own) | (most[place] != own)
