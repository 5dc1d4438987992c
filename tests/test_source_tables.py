"""Tables of labels as sources write them, and what several readers of one image agree on."""

import gzip
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from miniatures import table_tree

from qoq_lib.data.sources import tables
from qoq_lib.data.sources.agreement import agreed_boxes, by_majority
from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.source import Record, Source, SourceError
from qoq_lib.data.sources.tables import Join, joined, read_table


def listed(reader: FolderTable, root: Path) -> list[Record]:
    source = Source("mine", "ct", "none", ("a", "b", "c"), (reader,))
    return [one for one in source.records(root) if isinstance(one, Record)]


def test_a_compressed_table_reads_as_the_plain_one(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfname , label\r\n x ,1.0\r\n"
    (tmp_path / "t.csv").write_bytes(text)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text))
    plain, compressed = read_table(tmp_path / "t.csv"), read_table(tmp_path / "t.csv.gz")
    assert dict(plain[0]) == dict(compressed[0]) == {"name": "x", "label": "1.0"}
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text)[:-9])
    with pytest.raises(SourceError, match=r"t\.csv\.gz cannot be read"):
        read_table(tmp_path / "t.csv.gz")


@pytest.mark.parametrize("suffix", [".csv.gz", ".xlsx"])
def test_a_packed_table_that_is_a_bomb_or_damaged_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"t{suffix}"
    text = b"name,label\n" + b"a,b\n" * 100_000
    if suffix == ".xlsx":
        with ZipFile(path, "w", ZIP_DEFLATED) as archive:
            archive.writestr("xl/worksheets/sheet1.xml", text)
    else:
        path.write_bytes(gzip.compress(text))
    monkeypatch.setattr(tables, "_MAX_UNPACKED", 200_000)
    with pytest.raises(SourceError, match=r"cannot be read \(it unpacks to more than 200000 bytes"):
        read_table(path)
    path.write_bytes(path.read_bytes()[:100] + b"x" * 50)
    with pytest.raises(SourceError, match="cannot be read"):
        read_table(path)


def test_a_spreadsheet_reads_as_text(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in (["ID1 ", "Age", "subtype"], ["D1-0001", 44, None]):
        book.active.append(line)
    book.save(tmp_path / "t.xlsx")
    row = read_table(tmp_path / "t.xlsx", {"ID1": "patient"})[0]
    assert dict(row) == {"patient": "D1-0001", "Age": "44", "subtype": ""}


def test_a_column_that_is_not_there_is_named_with_its_table(tmp_path: Path) -> None:
    root = table_tree(tmp_path, ["1.png,a,p1"])
    for reader in (
        FolderTable("labels.csv", "{name}", "{label}"),
        FolderTable("labels.csv", "{file}", ("name",)),
        FolderTable("labels.csv", "{file}", "{label}", patient=lambda row: row["name"]),
    ):
        with pytest.raises(SourceError, match=r"labels\.csv has no column 'name'; it has 'file'"):
            listed(reader, root)


def test_a_join_adds_the_columns_of_the_line_with_the_same_key(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,label\n1,a\n2,b\n")
    (tmp_path / "b.csv").write_text("key,label,site\n1,other,left\n")
    rows = joined(read_table(tmp_path / "a.csv"), Join("b.csv", "key", "{id}"), tmp_path, "mine")
    assert dict(rows[0]) == {"id": "1", "label": "a", "key": "1", "site": "left"}
    assert dict(rows[1]) == {"id": "2", "label": "b", "key": "", "site": ""}
    under = Join("b.csv", "key", "{id}", prefix="b ", required=True)
    with pytest.raises(SourceError, match=r"b\.csv has 0 lines of '2' where mine needs one"):
        joined(read_table(tmp_path / "a.csv"), under, tmp_path, "mine")
    with pytest.raises(SourceError, match=r"b\.csv has no column 'no'; it has 'key'"):
        joined(rows, Join("b.csv", "no", "{id}"), tmp_path, "mine")
    with pytest.raises(SourceError, match="mine points out of its folder"):
        joined(rows, Join("../b.csv", "key", "{id}"), tmp_path, "mine")


def test_the_highest_of_several_answers_is_the_last_option(tmp_path: Path) -> None:
    root = table_tree(tmp_path, ["1.png,b,p", "1.png,c,p", "1.png,a,p", "2.png,a,p"])
    found = listed(FolderTable("labels.csv", "{file}", "{label}", highest=True), root)
    assert [one.answers for one in found] == [("c",), ("a",)]


def test_stars_find_a_file_in_any_folder_and_name_one_that_is_nowhere(tmp_path: Path) -> None:
    root = table_tree(tmp_path, ["i/1.png,a,p", "i/deep/er/2.png,b,q"])
    (root / "labels.csv").write_text("file,label\n1.png,a\n2.png,b\n3.png,a\n")
    found = listed(FolderTable("labels.csv", "i/**/{file}", "{label}"), root)
    assert [one.record_id for one in found] == ["i/1.png", "i/2.png", "i/3.png"]
    below = [one.images[0].relative_to(root).as_posix() for one in found]
    assert below == ["i/1.png", "i/deep/er/2.png", "i/3.png"]


def test_a_majority_counts_each_reader_once() -> None:
    stated = [("R1", ["a", "b"]), ("R1", ["a"]), ("R2", ["a"]), ("R3", ["c", "b"]), ("R4", ["b"])]
    assert by_majority(stated) == ("b",)  # a has two of four, and half is no majority
    assert by_majority([("R1", ["c", "a"])]) == ("c", "a")


def test_readers_agree_on_a_place_and_not_on_its_neighbour() -> None:
    left, right = (0.0, 0.0, 10.0, 10.0), (40.0, 0.0, 50.0, 10.0)
    near = (2.0, 0.0, 12.0, 10.0)
    assert agreed_boxes([("R1", left), ("R2", near), ("R3", right)], 3) == ((1, 0, 11, 10),)
    assert agreed_boxes([("R1", left), ("R1", near)], 3) == ()  # one reader, two boxes
    assert agreed_boxes([("R1", right)], 1) == (right,)
    assert agreed_boxes([], 3) == ()
