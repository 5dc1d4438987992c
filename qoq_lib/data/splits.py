"""Splitting records by patient, so that no patient and no duplicated file is on two sides.

Patients who share a file, byte for byte, form one group and move together. Official splits are
kept, except that a group with a member in the test split goes there whole; where a source has no
official validation split, one is drawn from its training patients.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product

SHARES: Mapping[str | None, Mapping[str, float]] = {
    None: {"train": 0.7, "validation": 0.1, "test": 0.2},
    "train": {"train": 0.875, "validation": 0.125},
    "validation": {"validation": 1.0},
    "test": {"test": 1.0},
}
"""Shares of the splits, by the official split a group comes from (``None``: there is none)."""

_MOST_HELD_OUT_FIRST = ("test", "validation", "train")
_ANY = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What splitting needs to know of a record: where it is from, and what its files hash to.

    ``patient`` is unique over all data sets: the same name in two of them is the same person.
    """

    dataset: str
    patient: str
    answers: tuple[str, ...]
    official: str | None
    hashes: tuple[str, ...]


def patient_groups(cases: Sequence[Case]) -> list[list[int]]:
    """The indices of ``cases`` in groups that share no patient and no file, in order."""
    parents = list(range(len(cases)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first_with: dict[tuple[str, str], int] = {}
    for index, case in enumerate(cases):
        for key in (("patient", case.patient), *(("", h) for h in case.hashes)):
            other = first_with.setdefault(key, index)
            low, high = sorted((root(other), root(index)))
            parents[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(cases)):
        groups[root(index)].append(index)
    return list(groups.values())


def duplicate_indices(cases: Sequence[Case]) -> list[list[int]]:
    """The indices of cases whose files are the same, byte for byte; one list per such set."""
    same: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        same[case.hashes].append(index)
    return [indices for indices in same.values() if len(indices) > 1]


def assign_splits(cases: Sequence[Case], seed: int) -> list[str]:
    """The split of each case: by group, in the proportions of ``SHARES``, labels spread evenly.

    Deterministic in ``cases`` and ``seed``.
    """
    has_validation = {case.dataset for case in cases if case.official == "validation"}
    strata: dict[tuple[str, str | None], list[list[int]]] = defaultdict(list)
    for group in patient_groups(cases):
        strata[cases[group[0]].dataset, _official([cases[index] for index in group])].append(group)
    splits = [""] * len(cases)
    for (dataset, official), groups in strata.items():
        shares = SHARES[official]
        if official == "train" and dataset in has_validation:
            shares = {"train": 1.0}
        random.Random(f"{seed}/{dataset}/{official}").shuffle(groups)
        answers = [[cases[index].answers for index in group] for group in groups]
        for group, split in zip(groups, _dealt(answers, shares), strict=True):
            for index in group:
                splits[index] = split
    return splits


def _official(group: Sequence[Case]) -> str | None:
    found = {case.official for case in group}
    return next((split for split in _MOST_HELD_OUT_FIRST if split in found), None)


def _dealt(groups: Sequence[Sequence[tuple[str, ...]]], shares: Mapping[str, float]) -> list[str]:
    """A split for each group, given the answers of its rows.

    As in iterative stratification (Sechidis et al., ECML PKDD 2011): the group with the rarest
    answer is dealt first, to the split where rows of that answer and rows in all are most lacking.
    Of two groups the larger goes first, so that the smaller can even out what is lacking.
    """
    count = Counter(answer for group in groups for row in group for answer in row)
    rarest = [min(sorted({*chain(*group)}), key=count.__getitem__) for group in groups]
    order = sorted(
        range(len(groups)), key=lambda at: (count[rarest[at]], rarest[at], -len(groups[at]))
    )
    lacking = {key: dict.fromkeys(shares, 0.0) for key in (*count, _ANY)}
    dealt = [""] * len(groups)
    for at in order:
        keys = [*chain(*groups[at]), *(_ANY for _ in groups[at])]
        for key, split in product(keys, shares):
            lacking[key][split] += shares[split]
        of_answer, of_all = lacking[rarest[at]], lacking[_ANY]
        dealt[at] = max(shares, key=lambda split: of_answer[split] + of_all[split])
        for key in keys:
            lacking[key][dealt[at]] -= 1
    return dealt
