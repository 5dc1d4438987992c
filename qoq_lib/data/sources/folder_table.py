"""The general reader of a folder of files and a table of their labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qoq_lib.data.sources.agreement import agreed_boxes, by_majority
from qoq_lib.data.sources.source import (
    Box,
    Record,
    Source,
    SourceError,
    as_age,
    as_sex,
    as_split,
    inside,
    unique,
)
from qoq_lib.data.sources.tables import Join, Row, Text, joined, read_table, text_of

_MARKS = {
    **dict.fromkeys(("1", "1.0"), True),
    # Not mentioned, negative, and uncertain: the paper's data keep what is positive only.
    **dict.fromkeys(("", "0", "0.0", "-1", "-1.0"), False),
}


@dataclass(frozen=True)
class FolderTable:
    """A table below the root, and what its columns mean.

    ``file`` is the image (or the ECG record) relative to the root; rows that share it are one
    record, and ``also`` are further images of it. In ``images/**/{name}`` the stars stand for any
    folders, or none. ``label`` is a text, or a tuple of one-hot columns whose names are the labels
    ("" if none is 1; -1, uncertain, is not 1). ``labels`` maps what is written to answers
    (``None``: no usable label).

    A record with two different answers is an error unless ``several`` may apply, or the ``highest``
    does: the last in the source's options. With a ``reader``, the rows of a file are several
    people's: an answer or a box stands where more than half of them give it.

    ``patient`` is by default the file. The ``mask`` files of all rows of a file are its masks;
    ``mask_partial`` declares that not every file has one, ``mask_values`` which of its values are
    the lesion. ``box`` gives a row's lesion box, a row
    being one of ``box_rows`` where boxes have a table of their own. ``joins`` add columns, in
    order; ``renamed`` maps a column's name to another before anything else.
    """

    table: str
    file: Text
    label: Text | tuple[str, ...]
    labels: Mapping[str, str | None] | None = None
    several: bool = False
    highest: bool = False
    also: tuple[Text, ...] = ()
    reader: Text = ""
    patient: Text = ""
    mask: Text = ""
    mask_partial: bool = False
    mask_values: tuple[int, ...] = ()
    box: Callable[[Row], Box | None] | None = None
    box_rows: Join | None = None
    report: Text = ""
    sex: Text = ""
    age: Text = ""
    split: Text = ""
    license: Text = ""
    joins: tuple[Join, ...] = ()
    renamed: Mapping[str, str] | None = None

    def __call__(self, source: Source, root: Path) -> Iterator[Record]:
        """Yield the records of ``source`` in the order of the table's files."""
        listing = _Listing(self, source, root)
        by_file: dict[str, list[Row]] = {}
        for row in listing.rows:
            by_file.setdefault(text_of(self.file, row), []).append(row)
        for name, same_file in by_file.items():
            yield listing.record(name, same_file)


@dataclass(frozen=True)
class _Listing:
    """One ``FolderTable`` at work on the folder ``root``."""

    table: FolderTable
    source: Source
    root: Path

    @property
    def where(self) -> str:
        return f"{self.source.name}, table {self.table.table}"

    @cached_property
    def rows(self) -> list[Row]:
        path = inside(self.root, self.table.table, self.source.name)
        rows = read_table(path, self.table.renamed)
        for join in self.table.joins:
            rows = joined(rows, join, self.root, self.where)
        return rows

    @cached_property
    def box_lines(self) -> dict[str, list[Row]]:
        join = self.table.box_rows
        return join.lines(self.root, self.where) if join else {}

    def record(self, name: str, rows: list[Row]) -> Record:
        """The record of the file ``name``, from its rows."""
        table, row = self.table, rows[0]
        folder, stars, below = name.partition("**/")
        declared = inside(self.root, folder + below, self.where)
        file = self._tree.get(below, declared) if stars else declared
        is_ecg = self.source.domain == "ecg"
        also = (inside(self.root, text_of(one, row), self.where) for one in table.also)
        masks = unique(filter(None, (text_of(table.mask, one) for one in rows)))
        return Record(
            record_id=declared.relative_to(self.root).as_posix(),
            patient_id=text_of(table.patient, row) or name,
            answers=self._answers(rows, str(file)),
            images=() if is_ecg else (file, *also),
            ecg=file if is_ecg else None,
            masks=self._masks(masks),
            mask_values=table.mask_values,
            boxes=self._boxes(rows),
            report=text_of(table.report, row) or None,
            sex=as_sex(text_of(table.sex, row)),
            age_years=as_age(text_of(table.age, row)),
            split=as_split(text_of(table.split, row)),
            license=text_of(table.license, row) or None,
        )

    @cached_property
    def _tree(self) -> dict[str, Path]:
        """Every file below the folder that ``**`` stands in, by its name."""
        folder = str(self.table.file).partition("**/")[0]
        files = sorted(inside(self.root, folder, self.where).rglob("*"))
        return {file.name: file for file in files if file.is_file()}

    def _masks(self, names: Sequence[str]) -> tuple[Path, ...]:
        paths = (inside(self.root, name, self.where) for name in names)
        return tuple(path for path in paths if not self.table.mask_partial or path.is_file())

    def _boxes(self, rows: list[Row]) -> tuple[Box, ...]:
        if self.table.box is None:
            return ()
        lines = rows
        if self.table.box_rows is not None:
            lines = self.box_lines.get(text_of(self.table.box_rows.key, rows[0]), [])
        drawn = [(text_of(self.table.reader, line), self.table.box(line)) for line in lines]
        boxes = [(reader, box) for reader, box in drawn if box is not None]
        if self.table.reader:
            return agreed_boxes(boxes, len({text_of(self.table.reader, row) for row in rows}))
        return tuple(box for _, box in boxes)

    def _answers(self, rows: list[Row], where: str) -> tuple[str, ...]:
        written = [(text_of(self.table.reader, row), self._labels(row, where)) for row in rows]
        if self.table.reader:
            stated = by_majority(written)
        else:
            stated = unique(label for _, labels in written for label in labels)
        answers = [self.source.answer(label, self.table.labels, where) for label in stated]
        usable = unique(answer for answer in answers if answer is not None)
        if len(usable) < 2 or self.table.several:
            return usable
        if self.table.highest:
            return (max(usable, key=self.source.options.index),)
        raise SourceError(
            f"{where}: the table gives it {len(usable)} labels ({', '.join(usable)}) where one "
            "is expected: correct the table."
        )

    def _labels(self, row: Row, where: str) -> list[str]:
        if not isinstance(self.table.label, tuple):
            return [text_of(self.table.label, row)]
        for column in self.table.label:
            if row[column] not in _MARKS:
                raise SourceError(
                    f"{where}: the column {column!r} holds {row[column]!r}, and a column of marks "
                    "holds 1, 0, -1 or nothing: correct the table."
                )
        return [column for column in self.table.label if _MARKS[row[column]]] or [""]
