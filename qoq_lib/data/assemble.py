"""From sources to one table: list, refuse, split by patient, write.

``assemble`` is the whole of notebook 01. Files are read twice, once to hash them (which decides
what may be split from what) and once to check and embed them, so that memory holds a few rows only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qoq_lib.data.example import FEATURES, check_row
from qoq_lib.data.prompts import diagnosis_question, shuffled
from qoq_lib.data.readers import (
    MediaError,
    boxes_of,
    content_hash,
    image_bytes,
    png_bytes,
    read_ecg,
    read_mask,
)
from qoq_lib.data.sources.kit import KIT
from qoq_lib.data.sources.own import own_source
from qoq_lib.data.sources.source import Record, Source, Unreadable
from qoq_lib.data.splits import Case, assign_splits, duplicate_indices
from qoq_lib.data.storage import (
    Assembly,
    AssemblyError,
    Duplicate,
    Refusal,
    SplitWriter,
    finish,
    load_assembled,
    load_assembly,
    new_folder,
)

__all__ = ["Assembly", "AssemblyError", "assemble", "load_assembled", "load_assembly"]

OnError = Literal["stop", "skip"]
SOURCES = ("phantom", "kit", "folder")
_REFUSED_SHARE = 0.01
_NAMED = 5


@dataclass(frozen=True)
class _Listed:
    """A record that is to be read, its source, and the hashes of its images or signal."""

    source: Source
    record: Record
    hashes: tuple[str, ...]

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
) -> Assembly:
    """Assemble one data set into the folder ``out``, replacing an earlier assembly there.

    ``source`` is ``"phantom"`` (drawn by code; takes ``rows`` and ``difficulty``), ``"kit"`` (nine
    subsets below ``data_root``) or ``"folder"`` (your own data of one ``domain`` below
    ``data_root``: a folder per class, or ``table``, a CSV with the columns file and label).

    ``on_error="stop"`` stops when more than 1 % of the records are refused, ``"skip"`` goes on.
    Raises ``SourceError`` where folders, tables or labels are not as declared, ``AssemblyError``
    where too much is refused, train or test stays empty, or ``out`` cannot be written; an earlier
    assembly then stays as it was.
    """
    if source not in SOURCES:
        raise AssemblyError(f"Unknown source {source!r}: use one of {', '.join(SOURCES)}.")
    if source == "phantom":
        return _assemble_phantom(Path(out), rows, seed, difficulty)
    if data_root is None:
        raise AssemblyError(f"Source {source!r} is read from disk: give its folder as data_root.")
    if source == "kit":
        return assemble_sources(KIT, data_root, out, name=source, seed=seed, on_error=on_error)
    if domain is None:
        raise AssemblyError("Source 'folder' needs the domain of its images or ECGs: give domain.")
    own = (own_source(data_root, domain, table),)
    return assemble_sources(own, data_root, out, name=source, seed=seed, on_error=on_error)


def assemble_sources(
    sources: Sequence[Source],
    data_root: Path,
    out: Path,
    *,
    name: str,
    seed: int = 0,
    on_error: OnError = "stop",
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
        splits = assign_splits(cases, seed)
        with SplitWriter(folder) as writer:
            for one, split in zip(listed, splits, strict=True):
                _write_record(one, split, seed, assembly, writer)
                _check_refused(assembly, total, on_error)
        _check_filled(assembly)
        return finish(assembly, folder)


def _assemble_phantom(out: Path, rows: int, seed: int, difficulty: float) -> Assembly:
    from qoq_lib.data.phantom import make_phantom  # heavy, and needed in this branch only

    assembly = Assembly(source="phantom", seed=seed)
    with new_folder(out) as folder:
        phantom = make_phantom(rows, seed=seed, difficulty=difficulty)
        with SplitWriter(folder) as writer:
            for batch in phantom.with_format("arrow").iter(batch_size=64):
                for row in batch.to_pylist():
                    writer.add(row)
                    assembly.count(row)
        _check_filled(assembly)
        return finish(assembly, folder)


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
        one = _Listed(source, record, content_hash(record.images, record.ecg))
    except MediaError as error:
        assembly.refused.append(Refusal(source.name, record.record_id, str(error)))
        return
    if one.row_id in listed:
        raise AssemblyError(f"The record {one.row_id} is listed twice: list each file once.")
    listed[one.row_id] = one


def _case(one: _Listed) -> Case:
    record = one.record
    return Case(one.source.name, record.patient_id, record.answers, record.split, one.hashes)


def _duplicates(listed: Sequence[_Listed], cases: Sequence[Case]) -> list[Duplicate]:
    return [
        Duplicate(
            ids=[listed[index].row_id for index in indices],
            same_label=len({cases[index].answers for index in indices}) == 1,
        )
        for indices in duplicate_indices(cases)
    ]


def _write_record(
    one: _Listed, split: str, seed: int, assembly: Assembly, writer: SplitWriter
) -> None:
    try:
        row = _row(one, split, seed)
    except MediaError as error:
        assembly.refused.append(Refusal(one.source.name, one.record.record_id, str(error)))
        return
    check_row(row)
    writer.add(row)
    assembly.count(row)


def _row(one: _Listed, split: str, seed: int) -> dict[str, Any]:
    """The assembled row of a record; ``MediaError`` where one of its files cannot be used."""
    source, record = one.source, one.record
    options = shuffled(list(source.options), seed, one.row_id)
    row: dict[str, Any] = dict.fromkeys(FEATURES) | {
        "id": one.row_id,
        "domain": source.domain,
        "dataset": source.name,
        "patient_id": f"{source.name}/{record.patient_id}",
        "split": split,
        "question": diagnosis_question(source.domain, options),
        "options": options,
        "answers": list(record.answers),
        "report": record.report,
        "sex": record.sex,
        "age_years": record.age_years,
        "license": record.license or source.license,
    }
    return row | _ecg_fields(record) | _image_fields(record)


def _ecg_fields(record: Record) -> dict[str, Any]:
    if record.ecg is None:
        return {}
    ecg = read_ecg(record.ecg)
    return {"ecg": list(ecg.signal), "ecg_leads": ecg.leads, "ecg_rate_hz": ecg.rate_hz}


def _image_fields(record: Record) -> dict[str, Any]:
    if not record.images:
        return {}
    images = [image_bytes(path) for path in record.images]
    mask = read_mask(record.masks, images[0][1])
    boxes = [list(box) for box in record.boxes] or (boxes_of(mask) if mask else None)
    return {
        "images": [{"bytes": data, "path": None} for data, _ in images],
        "mask": {"bytes": png_bytes(mask), "path": None} if mask else None,
        "boxes": boxes,
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
