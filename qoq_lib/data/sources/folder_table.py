"""The general reader of a folder of files and a CSV table of their labels."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from string import Formatter

import pandas as pd

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

Row = Mapping[str, str]
"""One line of a table: stripped column name to stripped cell, empty where the cell is."""


@dataclass(frozen=True)
class FolderTable:
    """A table below the root, and templates that say what its columns mean.

    A template is text with column names in braces, such as ``"images/{Image name}.jpg"``.

    ``file`` is the image (or the ECG record) relative to the root; rows that share it are one
    record. ``label`` is a template, or a tuple of one-hot columns whose names are the labels ("" if
    none is 1). ``labels`` maps what is written to answers (``None``: no usable label). A record
    with two different answers is an error unless ``several`` answers may apply. ``patient``
    is a template or a function of the row, by default the file. ``box`` gives a row's lesion box.
    """

    table: str
    file: str
    label: str | tuple[str, ...]
    labels: Mapping[str, str | None] | None = None
    several: bool = False
    patient: str | Callable[[Row], str] = ""
    mask: str = ""
    box: Callable[[Row], Box | None] | None = None
    report: str = ""
    sex: str = ""
    age: str = ""
    split: str = ""
    license: str = ""

    def __call__(self, source: Source, root: Path) -> Iterator[Record]:
        """Yield the records of ``source`` in the order of the table's files."""
        table = inside(root, self.table, source.name)
        rows = read_table(table)
        self._check_columns(rows, table)
        by_file: dict[str, list[Row]] = {}
        for row in rows:
            by_file.setdefault(self.file.format_map(row), []).append(row)
        for name, same_file in by_file.items():
            yield self._record(source, root, name, same_file)

    def _record(self, source: Source, root: Path, name: str, rows: list[Row]) -> Record:
        row, file = rows[0], inside(root, name, f"{source.name}, table {self.table}")
        mask = self.mask.format_map(row)
        boxes = [self.box(one) for one in rows] if self.box else []
        is_ecg = source.domain == "ecg"
        return Record(
            record_id=name,
            patient_id=self._patient(row) or name,
            answers=self._answers(source, rows, str(file)),
            images=() if is_ecg else (file,),
            ecg=file if is_ecg else None,
            masks=(inside(root, mask, f"{source.name}, table {self.table}"),) if mask else (),
            boxes=tuple(box for box in boxes if box is not None),
            report=self.report.format_map(row) or None,
            sex=as_sex(self.sex.format_map(row)),
            age_years=as_age(self.age.format_map(row)),
            split=as_split(self.split.format_map(row)),
            license=self.license.format_map(row) or None,
        )

    def _patient(self, row: Row) -> str:
        if callable(self.patient):
            return self.patient(row)
        return self.patient.format_map(row)

    def _answers(self, source: Source, rows: list[Row], where: str) -> tuple[str, ...]:
        written = unique(chain.from_iterable(self._labels(row) for row in rows))
        answers = [source.answer(label, self.labels, where) for label in written]
        usable = unique(answer for answer in answers if answer is not None)
        if len(usable) > 1 and not self.several:
            raise SourceError(
                f"{where}: the table gives it {len(usable)} labels ({', '.join(usable)}) where one "
                "is expected: correct the table."
            )
        return usable

    def _labels(self, row: Row) -> list[str]:
        if isinstance(self.label, str):
            return [self.label.format_map(row)]
        return [column for column in self.label if _is_one(row[column])] or [""]

    def _check_columns(self, rows: list[Row], table: Path) -> None:
        values = [getattr(self, one.name) for one in fields(self) if one.name != "table"]
        templates = [value for value in values if isinstance(value, str)]
        needed = {name for text in templates for _, name, _, _ in Formatter().parse(text) if name}
        if isinstance(self.label, tuple):
            needed |= set(self.label)
        lacking = sorted(needed - set(rows[0]))
        if lacking:
            raise SourceError(
                f"The table {table} has no column {lacking[0]!r}; it has "
                f"{', '.join(map(repr, rows[0]))}."
            )


def read_table(path: Path) -> list[Row]:
    """The lines of a CSV table (UTF-8, or Latin-1 where it is not), all cells as stripped text.

    ``SourceError`` on a missing, unreadable or empty table.
    """
    if not path.is_file():
        raise SourceError(f"The table {path} is missing: put it there or check data_root.")
    try:
        frame = _read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"The table {path} cannot be read ({reason}): save it as comma-separated text."
        ) from error
    if frame.empty:
        raise SourceError(f"The table {path} has no rows: list the files in it.")
    columns = [str(column).strip() for column in frame.columns]
    return [
        dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        for cells in frame.itertuples(index=False, name=None)
    ]


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnicodeDecodeError:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="latin-1")


def _is_one(cell: str) -> bool:
    return cell in ("1", "1.0")
