"""From sources to one table: list, refuse, split by patient, write.

``assemble`` is the whole of notebook 01. Files are read twice, once to hash them (which decides
what may be split from what) and once to check and embed them, so that memory holds a few rows only.
A run that was killed goes on with the shards it completed.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from qoq_lib.data.leaks import leak_text
from qoq_lib.data.listing import case_of, duplicates_of, list_records
from qoq_lib.data.making import made_phantom, made_row
from qoq_lib.data.phantom.rows import phantom_cases
from qoq_lib.data.shards import Maker, Shard, shards_of, write_shards
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

__all__ = ["Assembly", "AssemblyError", "assemble", "load_assembled", "load_assembly"]

OnError = Literal["stop", "skip"]
SOURCES = ("phantom", "kit", "folder")
_REFUSED_SHARE = 0.01
_NAMED = 5


def assemble(
    source: str,
    out: Path,
    *,
    data_root: Path | None = None,
    domain: str | None = None,
    table: str | None = None,
    rows: int = 1200,
    seed: int = 0,
    difficulty: float = 0.0,
    on_error: OnError = "stop",
    embed: bool = True,
    workers: int = 1,
) -> Assembly:
    """Assemble one data set into the folder ``out``, replacing an earlier assembly there.

    ``source`` is ``"phantom"`` (drawn by code; takes ``rows`` and ``difficulty``), ``"kit"`` (nine
    subsets below ``data_root``) or ``"folder"`` (your own data of one ``domain`` below
    ``data_root``: a folder per class, or ``table``, a CSV with the columns file and label).

    ``on_error="stop"`` stops when more than 1 % of the records are refused, ``"skip"`` goes on.
    ``embed=False`` stores the paths of JPEG and PNG files in place of their bytes: a smaller table,
    which breaks when they move. ``workers`` processes read and write. The leak report is printed.
    Raises ``SourceError`` where folders, tables or labels are not as declared, ``AssemblyError``
    where too much is refused, train or test stays empty, or ``out`` cannot be written; an earlier
    assembly then stays as it was.
    """
    if source not in SOURCES:
        raise AssemblyError(f"Unknown source {source!r}: use one of {', '.join(SOURCES)}.")
    if source == "phantom":
        return _assemble_phantom(Path(out), rows, seed, difficulty, workers)
    if data_root is None:
        raise AssemblyError(f"Source {source!r} is read from disk: give its folder as data_root.")
    if source == "kit":
        sources: tuple[Source, ...] = KIT
    elif domain is None:
        raise AssemblyError("Source 'folder' needs the domain of its images or ECGs: give domain.")
    else:
        sources = (own_source(data_root, domain, table),)
    return assemble_sources(
        sources,
        data_root,
        out,
        name=source,
        seed=seed,
        on_error=on_error,
        embed=embed,
        workers=workers,
    )


def assemble_sources(
    sources: Sequence[Source],
    data_root: Path,
    out: Path,
    *,
    name: str,
    seed: int = 0,
    on_error: OnError = "stop",
    embed: bool = True,
    workers: int = 1,
) -> Assembly:
    """``assemble`` for declared ``sources`` below ``data_root``; ``name`` is for the result."""
    if on_error not in ("stop", "skip"):
        raise AssemblyError(f"on_error is {on_error!r}: use 'stop' or 'skip'.")
    assembly = Assembly(source=name, seed=seed)
    with new_folder(Path(out)) as folder:
        listed = list_records(sources, Path(data_root), assembly)
        total = len(listed) + len(assembly.refused)
        _check_refused(assembly, total, on_error)
        cases = [case_of(one) for one in listed]
        assembly.duplicates = duplicates_of(listed, cases)
        shards = shards_of(listed, assign_splits(cases, seed))
        make = partial(made_row, seed=seed, embed=embed)
        return _write(assembly, folder, shards, make, workers, (total, on_error))


def _assemble_phantom(out: Path, rows: int, seed: int, difficulty: float, workers: int) -> Assembly:
    assembly = Assembly(source="phantom", seed=seed)
    with new_folder(out) as folder:
        cases = phantom_cases(rows, seed, difficulty)
        shards = shards_of(cases, [case.split for case in cases])
        make = partial(made_phantom, seed=seed, difficulty=difficulty)
        return _write(assembly, folder, shards, make, workers, (rows, "stop"))


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
