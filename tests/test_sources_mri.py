"""The MRI collections in their own layouts: labels, splits, copies and damaged files."""

from pathlib import Path

import pytest
from layouts import mri as layout
from miniatures import rows_of

from qoq_lib.data.assemble import assemble_sources
from qoq_lib.data.example import check_rows
from qoq_lib.data.sources.mri import SOURCES
from qoq_lib.data.storage import AssemblyError

BRAIN_TUMOR, BRAIN_TUMOR_2 = SOURCES


def test_brain_tumor_keeps_its_split_and_copies_leave_training(tmp_path: Path) -> None:
    root, out = layout.brain_tumor(tmp_path / "data"), tmp_path / "out"
    with pytest.raises(AssemblyError, match=r"1 of 44 .*image\(2\)\.jpg cannot be read"):
        assemble_sources([BRAIN_TUMOR], root, out, name="test")
    assembly = assemble_sources([BRAIN_TUMOR], root, out, name="test", on_error="skip")
    rows = {row["id"]: row for row in rows_of(out)}
    check_rows(rows.values())
    assert [one.record for one in assembly.refused] == ["Training/no_tumor/image(2).jpg"]
    assert len(rows) == 43
    assert {row["answers"][0] for row in rows.values()} == set(BRAIN_TUMOR.options)
    assert rows["brain_tumor/Testing/no_tumor/image(1).jpg"]["answers"] == ["no tumor"]
    assert all(row["split"] == "test" for name, row in rows.items() if "/Testing/" in name)
    # The fault: the published folders hold the same slices in Training and in Testing.
    copy = "brain_tumor/Training/glioma_tumor/gg(5).jpg"
    assert [one.ids for one in assembly.duplicates] == [
        ["brain_tumor/Testing/glioma_tumor/gg(1).jpg", copy]
    ]
    assert rows[copy]["split"] == "test"
    assert sum(row["split"] == "test" for row in rows.values()) == 12 + 1


def test_brain_tumor_2_is_read_once_although_its_archive_holds_it_twice(tmp_path: Path) -> None:
    root, out = layout.brain_tumor_2(tmp_path / "data"), tmp_path / "out"
    assembly = assemble_sources([BRAIN_TUMOR_2], root, out, name="test", on_error="skip")
    rows = {row["id"]: row for row in rows_of(out)}
    check_rows(rows.values())
    assert [one.record for one in assembly.refused] == ["yes/Y3.jpg"]
    assert len(rows) == 22 and not assembly.duplicates
    assert rows["brain_tumor_2/yes/Y1.jpg"]["answers"] == ["tumor"]
    assert rows["brain_tumor_2/no/N3.JPG"]["answers"] == ["no tumor"]
    assert {"train", "test"} <= {row["split"] for row in rows.values()}
