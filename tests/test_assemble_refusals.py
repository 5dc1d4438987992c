"""What assembly refuses, in one sentence each, leaving an earlier assembly as it was."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from miniatures import class_tree, draw, rows_of, same_bytes, table_tree

from qoq_lib.answers import read_answer
from qoq_lib.data.assemble import assemble, assemble_sources, load_assembled
from qoq_lib.data.prompts import boxed
from qoq_lib.data.sources.folder_per_class import FolderPerClass
from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.source import Source, SourceError
from qoq_lib.data.storage import AssemblyError


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A finished assembly that later failures must leave as it is."""
    out = tmp_path / "out"
    assemble("folder", out, data_root=class_tree(tmp_path / "first"), domain="ultrasound")
    return out


def test_a_label_outside_the_label_set_is_named_with_its_file(
    tmp_path: Path, earlier: Path
) -> None:
    before = same_bytes(earlier)
    root = class_tree(tmp_path / "mine")
    draw(root / "unsure" / "x.png", 7)
    source = Source("s", "ct", "none", ("benign", "malignant"), (FolderPerClass(),))
    with pytest.raises(SourceError, match=r"x\.png: the label 'unsure' is not in the label set"):
        assemble_sources([source], root, earlier, name="test", on_error="skip")
    assert same_bytes(earlier) == before
    assert not list(tmp_path.glob("out.*"))


def test_two_labels_for_one_file_are_refused_unless_several_may_apply(tmp_path: Path) -> None:
    lines = [f"{n}.png,{'a' if n % 2 else 'b'},p{n}" for n in range(20)] + ["3.png,b,p3"]
    root = table_tree(tmp_path / "mine", lines)
    with pytest.raises(SourceError, match=r"3\.png: the table gives it 2 labels \(a, b\)"):
        assemble("folder", tmp_path / "out", data_root=root, domain="ct", table="labels.csv")
    reader = FolderTable("labels.csv", "{file}", "{label}", several=True)
    source = Source("s", "ct", "none", ("a", "b"), (reader,))
    assemble_sources([source], root, tmp_path / "out", name="test")
    rows = {row["id"]: row for row in rows_of(tmp_path / "out")}
    assert rows["s/3.png"]["answers"] == ["a", "b"] and len(rows) == 20


def test_missing_and_corrupt_files_stop_or_are_skipped_by_name(
    tmp_path: Path, earlier: Path
) -> None:
    before = same_bytes(earlier)
    lines = [f"{n}.png,{'a' if n % 2 else 'b'},p{n}" for n in range(40)]
    root = table_tree(tmp_path / "mine", lines)
    (root / "3.png").unlink()
    (root / "8.png").write_bytes((root / "8.png").read_bytes()[:60])
    with pytest.raises(AssemblyError, match=r"1 of 40 .* more than 1 %.*3\.png is listed but mis"):
        assemble("folder", earlier, data_root=root, domain="ct", table="labels.csv")
    assert same_bytes(earlier) == before
    assembly = assemble(
        "folder", earlier, data_root=root, domain="ct", table="labels.csv", on_error="skip"
    )
    assert [refusal.record for refusal in assembly.refused] == ["3.png", "8.png"]
    assert "8.png cannot be read" in assembly.refused[1].reason
    assert len(rows_of(earlier)) == 38
    assert json.loads((earlier / "assembly.json").read_text())["refused"][0]["record"] == "3.png"


def test_one_refusal_in_a_hundred_goes_on(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "mine", 50)
    (root / "benign" / "00.png").write_bytes(b"")
    assembly = assemble("folder", tmp_path / "out", data_root=root, domain="ct")
    assert len(assembly.refused) == 1 and len(rows_of(tmp_path / "out")) == 99


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "mine", 2)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(AssemblyError, match="4 of 4 records are refused, so nothing is left"):
        assemble("folder", tmp_path / "out", data_root=root, domain="ct", on_error="skip")
    assert not (tmp_path / "out").exists()


def test_too_few_patients_leave_a_split_empty_and_say_so(tmp_path: Path) -> None:
    lines = [f"{n}.png,{'a' if n % 2 else 'b'},one" for n in range(20)]
    root = table_tree(tmp_path / "mine", lines)
    with pytest.raises(AssemblyError, match="The split 'test' is empty"):
        assemble("folder", tmp_path / "out", data_root=root, domain="ct", table="labels.csv")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "mine", 10)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AssemblyError, match="cannot be written to .*file/out"):
        assemble("folder", tmp_path / "file" / "out", data_root=root, domain="ct")
    with pytest.raises(AssemblyError, match="file exists and holds no assembled data set"):
        assemble("folder", tmp_path / "file", data_root=root, domain="ct")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(AssemblyError, match="holds no assembled data set; it is left as it is"):
        assemble("folder", root, data_root=root, domain="ct")
    assert len(list(root.rglob("*.png"))) == 20


def test_a_full_disk_and_an_interrupt_leave_the_earlier_assembly(
    tmp_path: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = same_bytes(earlier)
    root = class_tree(tmp_path / "mine", 10)
    for failure, expected in (
        (OSError(28, "No space left on device"), AssemblyError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def fail(*_: object, failure: BaseException = failure) -> None:
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(pq.ParquetWriter, "write_table", fail)
            with pytest.raises(expected):
                assemble("folder", earlier, data_root=root, domain="ct")
        assert same_bytes(earlier) == before
        assert not list(tmp_path.glob("out.*"))


def test_a_run_killed_between_its_renames_is_repaired(tmp_path: Path, earlier: Path) -> None:
    before = same_bytes(earlier)
    earlier.rename(tmp_path / "out.old")
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(SourceError, match="missing"):
        assemble("kit", earlier, data_root=tmp_path)
    assert same_bytes(earlier) == before


def test_paths_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    for path in ("../x.png", "/etc/x.png", "a/../../x.png"):
        lines = [f"{n}.png,{'a' if n % 2 else 'b'},p{n}" for n in range(4)]
        root = table_tree(tmp_path / "mine", lines)
        with (root / "labels.csv").open("a") as table:
            table.write(f"{path},a,p9\n")
        with pytest.raises(SourceError, match="points out of its folder"):
            assemble("folder", tmp_path / "out", data_root=root, domain="ct", table="labels.csv")


def test_links_out_of_the_folder_are_refused_and_the_folder_may_be_one(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "elsewhere" / "mine", 10)
    (tmp_path / "mine").symlink_to(root)
    assemble("folder", tmp_path / "out", data_root=tmp_path / "mine", domain="ct")
    assert len(rows_of(tmp_path / "out")) == 20
    draw(tmp_path / "secret" / "x.png", 1)
    link = root / "benign" / "link.png"
    for target in (tmp_path / "secret" / "x.png", root / "malignant" / "00.png"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        if target.is_relative_to(root):
            assert assemble("folder", tmp_path / "out", data_root=root, domain="ct").duplicates
            continue
        with pytest.raises(SourceError, match=r"link\.png of mine is a link out of its folder"):
            assemble("folder", tmp_path / "out", data_root=root, domain="ct")
    lines = ["secret/x.png,a", *(f"{n}.png,{'a' if n % 2 else 'b'}" for n in range(9))]
    table = table_tree(tmp_path / "table", lines[1:], "file,label")
    (table / "labels.csv").write_text("\n".join(["file,label", *lines, ""]))
    (table / "secret").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match=r"x\.png of table is a link out of its folder"):
        assemble("folder", tmp_path / "out", data_root=table, domain="ct", table="labels.csv")


def test_wrong_requests_are_one_sentence_each(tmp_path: Path) -> None:
    root, out = class_tree(tmp_path / "mine", 3), tmp_path / "out"
    (root / "bad.csv").write_text("name,label\n1.png,a\n")
    (root / "empty.csv").write_text("")
    with pytest.raises(
        SourceError, match="Unknown data set 'kitt': .*Use phantom, kit, folder, all"
    ):
        assemble("kitt", out)
    with pytest.raises(AssemblyError, match="give their folder data_root"):
        assemble("kit", out)
    with pytest.raises(AssemblyError, match="give domain"):
        assemble("folder", out, data_root=root)
    with pytest.raises(AssemblyError, match="on_error is 'ignore'"):
        assemble("folder", out, data_root=root, domain="ct", on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="unknown domain 'xray'"):
        assemble("folder", out, data_root=root, domain="xray")
    with pytest.raises(SourceError, match="nowhere is missing"):
        assemble("folder", out, data_root=root / "nowhere", domain="ct")
    with pytest.raises(SourceError, match="needs at least two"):
        assemble("folder", out, data_root=root / "benign", domain="ct")
    with pytest.raises(SourceError, match="has no column 'file'"):
        assemble("folder", out, data_root=root, domain="ct", table="bad.csv")
    with pytest.raises(SourceError, match=r"empty\.csv cannot be read"):
        assemble("folder", out, data_root=root, domain="ct", table="empty.csv")
    with pytest.raises(AssemblyError, match="holds no assembled data set"):
        load_assembled(out)


def test_labels_that_cannot_be_answered_are_refused() -> None:
    for options, expected in (
        (("a",), "at least two"),
        (("a", "a"), "two different"),
        (("a", " "), "label ' ' cannot be told"),
        (("a", "b{"), r"label 'b\{' cannot be told"),
        (("a", "b\nc"), "cannot be told"),
        (("nevus", "Nevus"), "cannot be told"),  # answers are read whatever their case
        (("a", "b", "a, b"), "label 'a, b' cannot be told"),  # both, or the third?
    ):
        with pytest.raises(SourceError, match=expected):
            Source("s", "ct", "none", options, (FolderPerClass(),))


def test_a_label_with_a_comma_is_one_label(tmp_path: Path) -> None:
    lines = [f"{n}.png,{('bleeding, acute', 'none')[n % 2]!r},p{n}" for n in range(20)]
    root = table_tree(tmp_path / "mine", [line.replace("'", '"') for line in lines])
    assemble("folder", tmp_path / "out", data_root=root, domain="ct", table="labels.csv")
    row = next(row for row in rows_of(tmp_path / "out") if row["answers"] != ["none"])
    assert read_answer(boxed(row["answers"]), row["options"]).labels == ("bleeding, acute",)
