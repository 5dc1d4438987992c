"""Tables of labels on disk: their lines as text, and the line of another table that belongs to one.

A line is kept as a tuple of cells beside one shared index of columns, because the largest tables
have hundreds of thousands of lines.
"""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import pandas as pd

from qoq_lib.data.sources.source import Box, SourceError, inside

_DAMAGE = (OSError, ValueError, EOFError, zlib.error, BadZipFile)  # pandas' are ValueErrors
_MAX_UNPACKED, _PART = 2**31, 2**20  # bytes; no table that is read whole comes near

Row = Mapping[str, str]
"""One line of a table: stripped column name to stripped cell, empty where the cell is."""

Text = str | Callable[[Row], str]
"""What a row says about something: a template with column names in braces, or a function."""


class _Columns(dict[str, int]):
    """Where each column of a table stands in its lines; a column that it has not is an error."""

    def __init__(self, names: Iterable[str], table: Path) -> None:
        super().__init__((name, index) for index, name in enumerate(names))
        self.table = table

    def __missing__(self, column: str) -> int:
        raise SourceError(
            f"The table {self.table} has no column {column!r}; it has {', '.join(map(repr, self))}."
        )


class _Line(Mapping[str, str]):
    __slots__ = ("cells", "columns")

    def __init__(self, columns: _Columns, cells: tuple[str, ...]) -> None:
        self.columns, self.cells = columns, cells

    def __getitem__(self, column: str) -> str:
        return self.cells[self.columns[column]]

    def __contains__(self, column: object) -> bool:
        return column in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


@dataclass(frozen=True)
class Join:
    """Another table below the root; to a row belongs its line where ``column`` is the row's key.

    ``key`` is what the row says that the line is called. The line's columns are added to the row
    under ``prefix`` + name, but for those that the row has. A row without a line gets empty cells,
    or is an error where the line is ``required``.
    """

    table: str
    column: str
    key: Text
    prefix: str = ""
    required: bool = False

    def lines(self, root: Path, where: str) -> dict[str, list[Row]]:
        """The lines of the other table by their key."""
        rows = read_table(inside(root, self.table, where))
        found: dict[str, list[Row]] = {}
        for row in rows:
            same_key = found.setdefault(row[self.column], [])
            if row not in same_key:  # a line that stands there twice is one
                same_key.append(row)
        return found


def text_of(text: Text, row: Row) -> str:
    """What ``row`` says by the template or function ``text``."""
    return text(row) if callable(text) else text.format_map(row)


def number_of(row: Row, column: str, where: str) -> float:
    """The number in a cell; ``SourceError`` about ``where`` if it is none."""
    try:
        number = float(row[column])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SourceError(
            f"{where}: the column {column!r} holds {row[column]!r} where a number is needed: "
            "correct the table."
        )
    return number


def box_in(x1: str, y1: str, x2: str, y2: str) -> Callable[[Row], Box | None]:
    """The box whose edges stand in these columns, ``None`` where they are empty."""

    def box(row: Row) -> Box | None:
        if not row[x1]:
            return None
        return float(row[x1]), float(row[y1]), float(row[x2]), float(row[y2])

    return box


def joined(rows: list[Row], join: Join, root: Path, where: str) -> list[Row]:
    """``rows`` with the cells of ``join``; ``SourceError`` on a key with two lines, or a lack."""
    lines = join.lines(root, where)
    other = next(iter(lines.values()))[0]
    added = [name for name in other if f"{join.prefix}{name}" not in rows[0]]
    names = _Columns((*rows[0], *(f"{join.prefix}{name}" for name in added)), root / join.table)
    blank = ("",) * len(added)
    result: list[Row] = []
    for row in rows:
        key = text_of(join.key, row)
        belonging = lines.get(key, [])
        if len(belonging) > 1 or (join.required and not belonging):
            raise SourceError(
                f"The table {root / join.table} has {len(belonging)} lines of {key!r} where "
                f"{where} needs one: fetch the table again."
            )
        cells = tuple(belonging[0][name] for name in added) if belonging else blank
        result.append(_Line(names, (*row.values(), *cells)))
    return result


def read_table(path: Path, renamed: Mapping[str, str] | None = None) -> list[Row]:
    """The lines of a table, all cells as stripped text; columns in ``renamed`` get its names.

    Comma-separated text (with tabs as ``.tsv``) in UTF-8, or in Latin-1 where it is not, plain or
    compressed (``.gz``), a spreadsheet (``.xlsx``), or a ``.json`` list of objects, whose ``null``
    and absent values are empty cells and whose others are as JSON writes them. ``SourceError`` on a
    missing, unreadable or empty table.
    """
    if not path.is_file():
        raise SourceError(f"The table {path} is missing: put it there or check data_root.")
    try:
        _check_unpacked(path)
        frame = _READERS.get(path.suffix, _read_csv)(path)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"The table {path} cannot be read ({reason}): save it as comma-separated text."
        ) from error
    if frame.empty:
        raise SourceError(f"The table {path} has no rows: list the files in it.")
    names = (str(column).strip() for column in frame.columns)
    columns = _Columns(((renamed or {}).get(name, name) for name in names), path)
    same: dict[str, str] = {}  # one object per distinct cell: most cells are labels
    return [
        _Line(columns, tuple(same.setdefault(cell, cell) for cell in map(str.strip, cells)))
        for cells in frame.itertuples(index=False, name=None)
    ]


def _check_unpacked(path: Path) -> None:
    """``ValueError`` where a packed table is a bomb: found by unpacking it, not by what it says."""
    unpacked = 0
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            while (part := stream.read(_PART)) and unpacked <= _MAX_UNPACKED:
                unpacked += len(part)
    elif path.suffix == ".xlsx":
        with ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MAX_UNPACKED:
        raise ValueError(f"it unpacks to more than {_MAX_UNPACKED} bytes")


def _read_csv(path: Path) -> pd.DataFrame:
    separator = "\t" if ".tsv" in path.suffixes else ","
    try:
        return pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except UnicodeDecodeError:
        return pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="latin-1"
        )


def _read_json(path: Path) -> pd.DataFrame:
    lines = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        raise ValueError("it is no list of objects")
    return pd.DataFrame([{key: _json_cell(line[key]) for key in line} for line in lines]).fillna("")


def _json_cell(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)


def _read_excel(path: Path) -> pd.DataFrame:
    try:
        return pd.read_excel(path, dtype=str, keep_default_na=False)
    except ImportError as error:
        raise SourceError(
            f"The spreadsheet {path} needs the package openpyxl: install qoq-med-repro[data]."
        ) from error


_READERS = {".xlsx": _read_excel, ".json": _read_json}
