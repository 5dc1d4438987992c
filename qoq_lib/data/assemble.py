"""From sources to one table: list, refuse, split by patient, write.

``assemble`` is the whole of notebook 01. Files are read twice, once to hash them (which decides
what may be split from what) and once to check and embed them, so that memory holds a few rows only.
A run that was killed goes on with the shards it completed.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from qoq_lib.data.example import FEATURES
from qoq_lib.data.leaks import leak_text
from qoq_lib.data.prompts import shuffled, task_question
from qoq_lib.data.readers import (
    MediaError,
    StoredImage,
    View,
    boxes_of,
    content_hash,
    look_of,
    marked_frames,
    read_ecg,
    read_mask,
    stored_images,
)
from qoq_lib.data.shards import Made, Maker, Refusal, Shard, shards_of, write_shards
from qoq_lib.data.sources.kit import KIT
from qoq_lib.data.sources.own import own_source
from qoq_lib.data.sources.source import Record, Source, Unreadable
from qoq_lib.data.splits import Case, assign_splits, duplicate_indices
from qoq_lib.data.storage import (
    Assembly,
    AssemblyError,
    Duplicate,
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


@dataclass(frozen=True, slots=True)
class _Listed:
    """A record that is to be read, its source, and the hashes of its images or signal.

    ``masks`` are sizes and times of the mask files, which are not hashed. All is plain data that
    another process can be sent, so the source is without its readers.
    """

    source: Source
    record: Record
    hashes: tuple[str, ...]
    masks: tuple[tuple[int, int], ...]

    @property
    def row_id(self) -> str:
        return f"{self.source.name}/{self.record.record_id}"


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
        listed = _list_records(sources, Path(data_root), assembly)
        total = len(listed) + len(assembly.refused)
        _check_refused(assembly, total, on_error)
        cases = [_case(one) for one in listed]
        assembly.duplicates = _duplicates(listed, cases)
        shards = shards_of(listed, assign_splits(cases, seed))
        make = partial(_made, seed=seed, embed=embed)
        return _write(assembly, folder, shards, make, workers, (total, on_error))


def _assemble_phantom(out: Path, rows: int, seed: int, difficulty: float, workers: int) -> Assembly:
    from qoq_lib.data.phantom.rows import phantom_cases  # needed in this branch only

    assembly = Assembly(source="phantom", seed=seed)
    with new_folder(out) as folder:
        cases = phantom_cases(rows, seed, difficulty)
        shards = shards_of(cases, [case.split for case in cases])
        make = partial(_made_phantom, seed=seed, difficulty=difficulty)
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


def _made_phantom(case: Any, split: str, *, seed: int, difficulty: float) -> Made:
    from qoq_lib.data.phantom.rows import phantom_row

    row = phantom_row(case, seed, difficulty)
    first = row["images"][:1]
    return Made(row, look_of(Image.open(io.BytesIO(first[0]["bytes"]))) if first else None)


def _list_records(sources: Sequence[Source], root: Path, assembly: Assembly) -> list[_Listed]:
    """The records to read; the others are counted in ``assembly``."""
    listed: dict[str, _Listed] = {}
    for source in sources:
        assembly.options[source.name] = list(source.options)
        for record in source.records(root):
            if isinstance(record, Unreadable):
                assembly.refused.append(Refusal(source.name, record.record_id, record.reason))
            elif source.missing == "skip" and not all(file.is_file() for file in record.files):
                _add_one(assembly.not_here, source.name)
            elif not record.answers:
                _add_one(assembly.unlabelled, source.name)
            else:
                _hash_into(listed, source, record, assembly)
        if source.name not in {one.dataset for one in assembly.refused} | {
            one.source.name for one in listed.values()
        }:
            raise AssemblyError(
                f"{source.name} has no record with a label below {root / source.folder}: check "
                "data_root and the files there."
            )
    return list(listed.values())


def _hash_into(
    listed: dict[str, _Listed], source: Source, record: Record, assembly: Assembly
) -> None:
    try:
        hashes = content_hash(record.images, record.ecg)
    except MediaError as error:
        assembly.refused.append(Refusal(source.name, record.record_id, str(error)))
        return
    one = _Listed(replace(source, readers=()), record, hashes, _stamps(record.masks))
    if one.row_id in listed:
        raise AssemblyError(f"The record {one.row_id} is listed twice: list each file once.")
    listed[one.row_id] = one


def _case(one: _Listed) -> Case:
    source, record = one.source, one.record
    return Case(source.name, source.patient(record), record.answers, record.split, one.hashes)


def _duplicates(listed: Sequence[_Listed], cases: Sequence[Case]) -> list[Duplicate]:
    """Copies of files; two questions about one and the same file are none."""
    return [
        Duplicate(
            ids=[listed[index].row_id for index in indices],
            same_label=len({cases[index].answers for index in indices}) == 1,
        )
        for indices in duplicate_indices(cases)
        if len({listed[index].record.files for index in indices}) > 1
    ]


def _stamps(files: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    found = [file.stat() for file in files if file.is_file()]
    return tuple((one.st_size, one.st_mtime_ns) for one in found)


def _made(one: _Listed, split: str, *, seed: int, embed: bool) -> Made | Refusal:
    """The row of a record, or why one of its files cannot be used."""
    try:
        files = _images(one)
        row = _row(one, split, seed) | _ecg_fields(one.record) | _image_fields(one, files, embed)
    except MediaError as error:
        return Refusal(one.source.name, one.record.record_id, str(error))
    return Made(row, look_of(files[0][0].image) if files else None)


def _row(one: _Listed, split: str, seed: int) -> dict[str, Any]:
    """The assembled row of a record but for its media."""
    source, record = one.source, one.record
    options = shuffled(list(source.options), seed, one.row_id)
    return dict.fromkeys(FEATURES) | {
        "id": one.row_id,
        "domain": source.domain,
        "dataset": source.name,
        "patient_id": source.patient(record),
        "split": split,
        "question": task_question(source.task, source.domain, options),
        "options": options,
        "answers": list(record.answers),
        "report": record.report,
        "sex": record.sex,
        "age_years": record.age_years,
        "license": record.license or source.license,
    }


def _ecg_fields(record: Record) -> dict[str, Any]:
    if record.ecg is None:
        return {}
    ecg = read_ecg(record.ecg)
    return {"ecg": list(ecg.signal), "ecg_leads": ecg.leads, "ecg_rate_hz": ecg.rate_hz}


def _images(one: _Listed) -> list[list[StoredImage]]:
    """The images of each file of a record; the masks may say which slices of a volume."""
    record = one.record
    frames = record.frames or marked_frames(record.masks, record.mask_values)
    view = View(one.source.window, frames, record.crop)
    return [stored_images(path, view) for path in record.images]


def _image_fields(
    one: _Listed, files: Sequence[Sequence[StoredImage]], embed: bool
) -> dict[str, Any]:
    """Images, mask and boxes; masks are of the first file."""
    if not files:
        return {}
    record = one.record
    mask = read_mask(record.masks, files[0], record.mask_values, record.crop)
    return {
        "images": [image.field(embed) for images in files for image in images],
        "mask": StoredImage(mask).field(embed) if mask else None,
        "boxes": [list(box) for box in record.boxes] or (boxes_of(mask) if mask else None),
    }


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


def _add_one(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1
