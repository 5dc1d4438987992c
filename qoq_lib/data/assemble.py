"""From sources to one table: list, refuse, split by patient, write.

``assemble`` is the whole of notebook 01. Files are read twice, once to hash them (which decides
what may be split from what) and once to check and embed them, so that memory holds a few rows only.
A run that was killed goes on with the shards it completed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from qoq_lib.data.balance import Balance, Kind, kept_rows
from qoq_lib.data.leaks import leak_text
from qoq_lib.data.listing import Listed, case_of, duplicates_of, list_records
from qoq_lib.data.making import made_phantom, made_row
from qoq_lib.data.phantom.plan import Case
from qoq_lib.data.phantom.rows import dataset_of, phantom_cases
from qoq_lib.data.shards import Maker, Shard, shards_of, write_shards
from qoq_lib.data.sources.catalogue import choose_sources
from qoq_lib.data.sources.kit import KIT
from qoq_lib.data.sources.own import own_source
from qoq_lib.data.sources.source import Source
from qoq_lib.data.splits import assign_splits
from qoq_lib.data.storage import (
    Assembly,
    AssemblyError,
    collect,
    finish,
    load_assembled,
    load_assembly,
    new_folder,
)
from qoq_lib.runs import progress

__all__ = ["Assembly", "AssemblyError", "Balance", "assemble", "load_assembled", "load_assembly"]

OnError = Literal["stop", "skip"]
EVERYTHING = Balance()
_REFUSED_SHARE = 0.01
_NAMED = 5


def assemble(
    sources: str,
    out: Path,
    *,
    data_root: Path | None = None,
    domain: str | None = None,
    table: str | None = None,
    rows: int = 1200,
    seed: int = 0,
    difficulty: float = 0.0,
    balance: Balance = EVERYTHING,
    demographics: bool = False,
    on_error: OnError = "stop",
    embed: bool = True,
    workers: int = 1,
) -> Assembly:
    """Assemble data sets into the folder ``out``, replacing an earlier assembly there.

    ``sources`` is ``"phantom"`` (drawn by code; takes ``rows`` and ``difficulty``), ``"kit"`` (nine
    subsets below ``data_root``), ``"folder"`` (your own data of one ``domain`` below ``data_root``:
    a folder per class, or ``table``, a CSV with the columns file and label), or data sets of the
    paper below ``data_root``: ``"all"``, of one ``domain`` if that is given, or their names.

    ``balance`` thins out the training rows. ``demographics`` puts sex and age, where known, before
    the question. ``on_error="stop"`` stops when more than 1 % of the
    records are refused, ``"skip"`` goes on. ``embed=False`` stores the paths of JPEG and PNG files
    in place of their bytes: a smaller table, which breaks when they move. ``workers`` processes
    read and write. The leak report is printed.
    Raises ``SourceError`` where folders, tables or labels are not as declared, ``AssemblyError``
    where too much is refused, train or test stays empty, or ``out`` cannot be written; an earlier
    assembly then stays as it was.
    """
    if sources == "phantom":
        make = partial(made_phantom, seed=seed, difficulty=difficulty, demographics=demographics)
        cases = phantom_cases(rows, seed, difficulty)
        return _assemble_phantom(Path(out), cases, seed, balance, make, workers)
    return assemble_sources(
        *_declared(sources, data_root, domain, table),
        out,
        name=sources,
        seed=seed,
        balance=balance,
        demographics=demographics,
        on_error=on_error,
        embed=embed,
        workers=workers,
    )


def _declared(
    sources: str, data_root: Path | None, domain: str | None, table: str | None
) -> tuple[tuple[Source, ...], Path]:
    """The sources that are meant, and the folder they are below."""
    chosen = KIT if sources == "kit" else choose_sources(sources, domain)
    if data_root is None:
        raise AssemblyError(f"Data of {sources!r} are read from disk: give their folder data_root.")
    if sources != "folder":
        return chosen, data_root
    if domain is None:
        raise AssemblyError("A folder of your own needs the domain of its files: give domain.")
    return (own_source(data_root, domain, table),), data_root


def assemble_sources(
    sources: Sequence[Source],
    data_root: Path,
    out: Path,
    *,
    name: str,
    seed: int = 0,
    balance: Balance = EVERYTHING,
    demographics: bool = False,
    on_error: OnError = "stop",
    embed: bool = True,
    workers: int = 1,
) -> Assembly:
    """``assemble`` for declared ``sources`` below ``data_root``; ``name`` is for the result."""
    if on_error not in ("stop", "skip"):
        raise AssemblyError(f"on_error is {on_error!r}: use 'stop' or 'skip'.")
    assembly = Assembly(sources=name, seed=seed)
    with new_folder(Path(out)) as folder:
        listed = list_records(sources, Path(data_root), assembly)
        total = len(listed) + len(assembly.refused)
        _check_refused(assembly, total, on_error)
        cases = [case_of(one) for one in listed]
        assembly.duplicates = duplicates_of(listed, cases)
        splits = assign_splits(cases, seed)
        shards = _shards(assembly, listed, splits, balance, _kind_of_record)
        make = partial(made_row, seed=seed, embed=embed, demographics=demographics)
        return _write(assembly, folder, shards, make, workers, (total, on_error))


def _assemble_phantom(
    out: Path, cases: Sequence[Case], seed: int, balance: Balance, make: Maker, workers: int
) -> Assembly:
    assembly = Assembly(sources="phantom", seed=seed)
    with new_folder(out) as folder:
        splits = [case.split for case in cases]
        shards = _shards(assembly, cases, splits, balance, _kind_of_case)
        return _write(assembly, folder, shards, make, workers, (len(cases), "stop"))


def _shards(
    assembly: Assembly,
    items: Sequence[Any],
    splits: Sequence[str],
    balance: Balance,
    kind_of: Callable[[Any], Kind],
) -> list[Shard]:
    """The shards of the items that ``balance`` keeps; the others are counted."""
    if balance == EVERYTHING:
        return shards_of(items, splits)
    kinds = [kind_of(item) for item in items]
    kept = kept_rows(kinds, splits, balance, assembly.seed)
    left_out = Counter(kind.dataset for kind in kinds)
    left_out.subtract(kinds[index].dataset for index in kept)
    assembly.balanced_out = {name: count for name, count in left_out.items() if count}
    return shards_of([items[index] for index in kept], [splits[index] for index in kept])


def _kind_of_record(one: Listed) -> Kind:
    return Kind(one.source.domain, one.source.name, one.record.answers)


def _kind_of_case(case: Case) -> Kind:
    return Kind(case.domain, dataset_of(case.domain), (case.finding.diagnosis,))


def _write(
    assembly: Assembly,
    folder: Path,
    shards: Sequence[Shard],
    make: Maker,
    workers: int,
    bound: tuple[int, OnError],
) -> Assembly:
    """Write, count and check all shards; ``bound`` is the total of records and ``on_error``."""
    notes = progress(write_shards(folder, shards, make, workers), "Shards")
    for _ in collect(assembly, folder, notes):
        _check_refused(assembly, *bound)
    _check_filled(assembly)
    finish(assembly, folder)
    print(leak_text(assembly.leaks))
    return assembly


def _check_refused(assembly: Assembly, total: int, on_error: OnError) -> None:
    refused = assembly.refused
    if total and len(refused) == total:
        verdict = "so nothing is left"
    elif on_error == "stop" and len(refused) > _REFUSED_SHARE * total:
        verdict = "more than 1 %"
    else:
        return
    reasons = " | ".join(refusal.reason for refusal in refused[:_NAMED])
    raise AssemblyError(
        f"{len(refused)} of {total} records are refused, {verdict}; repair or unlist them, or "
        f"assemble with on_error='skip'. The first: {reasons}"
    )


def _check_filled(assembly: Assembly) -> None:
    for split in ("train", "test"):
        if not assembly.rows_in(split):
            raise AssemblyError(
                f"The split {split!r} is empty: there are too few patients to split "
                f"({sum(assembly.rows_in(name) for name in ('train', 'validation', 'test'))} rows "
                "in all); give more of them."
            )
