"""The records of an assembly before any of them is opened: listed, counted, hashed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qoq_lib.data.readers import MediaError, content_hash
from qoq_lib.data.shards import AssemblyError, Refusal
from qoq_lib.data.sources.source import Record, Source, Unreadable
from qoq_lib.data.splits import Case, duplicate_indices
from qoq_lib.data.storage import Assembly, Duplicate


@dataclass(frozen=True, slots=True)
class Listed:
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
        """The id of its row."""
        return f"{self.source.name}/{self.record.record_id}"


def list_records(sources: Sequence[Source], root: Path, assembly: Assembly) -> list[Listed]:
    """The records to read; the others are counted in ``assembly``."""
    listed: dict[str, Listed] = {}
    for source in sources:
        assembly.options[source.name] = list(source.options)
        declared = replace(source, readers=())
        for record in source.records(root):
            if isinstance(record, Unreadable):
                assembly.refused.append(Refusal(source.name, record.record_id, record.reason))
            elif source.missing == "skip" and not all(file.is_file() for file in record.files):
                _add_one(assembly.not_here, source.name)
            elif not record.answers:
                _add_one(assembly.unlabelled, source.name)
            else:
                _hash_into(listed, declared, record, assembly)
        if source.name not in {one.dataset for one in assembly.refused} | {
            one.source.name for one in listed.values()
        }:
            raise AssemblyError(
                f"{source.name} has no record with a label below {root / source.folder}: check "
                "data_root and the files there."
            )
    return list(listed.values())


def _hash_into(
    listed: dict[str, Listed], source: Source, record: Record, assembly: Assembly
) -> None:
    try:
        hashes = content_hash(record.images, record.ecg)
    except MediaError as error:
        assembly.refused.append(Refusal(source.name, record.record_id, str(error)))
        return
    one = Listed(source, record, hashes, _stamps(record.masks))
    if one.row_id in listed:
        raise AssemblyError(f"The record {one.row_id} is listed twice: list each file once.")
    listed[one.row_id] = one


def case_of(one: Listed) -> Case:
    """What splitting needs to know of a record."""
    source, record = one.source, one.record
    return Case(source.name, source.patient(record), record.answers, record.split, one.hashes)


def duplicates_of(listed: Sequence[Listed], cases: Sequence[Case]) -> list[Duplicate]:
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


def _add_one(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1
