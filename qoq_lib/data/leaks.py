"""The leak report: what a finished assembly shares between its splits, counted from its index.

It is counted from what was written, not from what the splitting meant to do. Patients and exact
copies must never be on two sides. Near-duplicates (the first image looks like one of another
patient) are counted only: a hash cannot tell a copy from two similar chests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_SAME = np.uint64(0)


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
    dataset, names = _codes(index, "dataset")
    split, _ = _codes(index, "split")
    patient, _ = _codes(index, "patient_id")
    content, _ = _codes(index, "content")
    near, near_across = _near_copies(index, patient, split)
    by_patient, by_content = _splits_of(patient, split), _splits_of(content, split)
    copied = np.bincount(content)[content] > 1
    report = {}
    for code, name in enumerate(names):
        of = dataset == code
        report[name] = Leaks(
            rows=int(of.sum()),
            patients=len(np.unique(patient[of])),
            patients_across=len(np.unique(patient[of & by_patient])),
            copies=int((of & copied).sum()),
            copies_across=int((of & by_content).sum()),
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


def _codes(index: pa.Table, name: str) -> tuple[np.ndarray, list[str]]:
    """A column of strings as numbers from 0, and the strings they stand for."""
    column = index[name].combine_chunks().dictionary_encode()
    return column.indices.to_numpy(zero_copy_only=False), column.dictionary.to_pylist()


def _splits_of(group: np.ndarray, split: np.ndarray) -> np.ndarray:
    """For each row, whether its group is in more than one split."""
    pairs = np.unique(np.stack([group, split]), axis=1)
    return np.bincount(pairs[0], minlength=group.max(initial=-1) + 1)[group] > 1


def _near_copies(
    index: pa.Table, patient: np.ndarray, split: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each row, whether it looks like another patient's, and like one of another split.

    Looks one bit apart are found by asking for each of the 64 neighbours of each look, which takes
    a time in proportion to the rows, where comparing all pairs would take one to their square.
    """
    has_look = index["look"].is_valid().to_numpy()
    look = index["look"].fill_null(0).to_numpy()
    rows = np.flatnonzero(has_look)
    rows = rows[np.argsort(look[rows], kind="stable")]
    found = _Alike(look[rows], patient[rows], split[rows])
    near, across = (np.zeros(len(look), dtype=bool) for _ in range(2))
    for bit in (_SAME, *(np.uint64(1) << np.arange(64, dtype=np.uint64))):
        other_patient, other_split = found.at(look[rows] ^ bit)
        near[rows] |= other_patient
        across[rows] |= other_patient & other_split
    return near, across


class _Alike:
    """Rows sorted by look, and for each look whether it has one patient and split, and which."""

    def __init__(self, look: np.ndarray, patient: np.ndarray, split: np.ndarray) -> None:
        self._looks, first = np.unique(look, return_index=True)
        self._own = patient, split
        self._some = [_least_and_most(values, first) for values in (patient, split)]

    def at(self, looks: np.ndarray) -> Sequence[np.ndarray]:
        """For each row, whether among those with the look in ``looks`` is one of another ..."""
        if not len(self._looks):
            return [np.zeros(0, dtype=bool)] * 2
        place = np.searchsorted(self._looks, looks).clip(max=len(self._looks) - 1)
        there = self._looks[place] == looks
        return [
            there & ((least[place] != own) | (most[place] != own))
            for own, (least, most) in zip(self._own, self._some, strict=True)
        ]


def _least_and_most(values: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(first):
        return values, values
    return np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
