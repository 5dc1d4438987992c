"""Shards: resume after a kill, several processes, what is written again and what is kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from miniatures import class_tree, draw, rows_of, same_bytes

from qoq_lib.data import shards
from qoq_lib.data.assemble import assemble, load_assembled
from qoq_lib.data.example import check_rows
from qoq_lib.data.leaks import leak_report, leak_text
from qoq_lib.data.shards import INDEX_SCHEMA
from qoq_lib.data.storage import AssemblyError, load_index


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen rows a shard."""
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", 16)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells a shard that was kept from one written again, by name."""
    found = {path.stem: path.stat() for path in folder.glob("*-?????.parquet")}
    return {name: (one.st_ino, one.st_mtime_ns) for name, one in found.items()}


def finished(partial: Path) -> dict[str, tuple[int, int]]:
    """The ``stamps`` of the complete shards of an unfinished assembly."""
    notes = {note.stem for note in partial.glob("*.json")}
    return {name: stamp for name, stamp in stamps(partial).items() if name in notes}


SLOW = """
import sys, time
from pathlib import Path
from qoq_lib.data import shards
from qoq_lib.data.assemble import assemble

add = shards._RowGroups.add
shards._RowGroups.add = lambda self, row: (time.sleep(0.02), add(self, row))
shards.ROWS_PER_SHARD = 16
assemble("folder", Path(sys.argv[2]), data_root=Path(sys.argv[1]), domain="ct")
"""


def test_a_killed_assembly_goes_on_where_it_stood(tmp_path: Path, small_shards: None) -> None:
    root, out = class_tree(tmp_path / "mine", 80), tmp_path / "killed"
    partial = tmp_path / "killed.partial"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(root), str(out)])
    while len(finished(partial)) < 3 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = finished(partial)
    assert 3 <= len(kept) < 11 and not out.exists()
    broken = min(kept)
    (partial / f"{broken}.parquet").write_bytes(b"cut short")
    assembly = assemble("folder", out, data_root=root, domain="ct")
    now = stamps(out)
    assert {name for name in kept if now[name] == kept[name]} == kept.keys() - {broken}
    assert assembly == assemble("folder", tmp_path / "whole", data_root=root, domain="ct")
    assert same_bytes(out) == same_bytes(tmp_path / "whole")
    assert not list(tmp_path.glob("*.partial"))


def test_an_interrupt_keeps_complete_shards_of_the_same_rows_only(
    tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = class_tree(tmp_path / "mine", 40), tmp_path / "out"
    arguments = {"data_root": root, "domain": "ct"}
    write = shards._RowGroups.add
    left = iter(range(40))

    def interrupted(self: shards._RowGroups, row: dict) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(shards._RowGroups, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            assemble("folder", out, **arguments)
    kept = finished(tmp_path / "out.partial")
    assert len(kept) == 2 and not out.exists()
    changed = load_first_file(tmp_path / "out.partial" / f"{min(kept)}.parquet")
    draw(root / changed, 77_777)
    assemble("folder", out, **arguments)
    now = stamps(out)
    assert [now[name] == kept[name] for name in sorted(kept)] == [False, True]
    assemble("folder", tmp_path / "fresh", **arguments)
    assert same_bytes(out) == same_bytes(tmp_path / "fresh")


def load_first_file(shard: Path) -> str:
    """The path, relative to its root, of the file of a shard's first row."""
    row_id: str = pq.read_table(shard, columns=["id"])["id"][0].as_py()
    return row_id.removeprefix("mine/")


def test_processes_write_what_one_writes_and_count_what_it_refuses(
    tmp_path: Path, small_shards: None
) -> None:
    root = class_tree(tmp_path / "mine", 40)
    (root / "benign" / "07.png").write_bytes(b"no image")
    given: dict[str, Any] = {"data_root": root, "domain": "ct", "on_error": "skip"}
    alone = assemble("folder", tmp_path / "alone", **given)
    shared = assemble("folder", tmp_path / "shared", workers=2, **given)
    assert alone == shared and [one.record for one in shared.refused] == ["benign/07.png"]
    assert same_bytes(tmp_path / "alone") == same_bytes(tmp_path / "shared")


def test_the_index_finds_every_row(tmp_path: Path, small_shards: None) -> None:
    root, out = class_tree(tmp_path / "mine", 40), tmp_path / "out"
    assembly = assemble("folder", out, data_root=root, domain="ct")
    index = load_index(out).to_pylist()
    assert len(index) == 80 and {line["shard"] for line in index} == set(assembly.files)
    for line in index[::17]:
        row = pq.read_table(out / line["shard"])["id"][line["position"]]
        assert row.as_py() == line["id"]
    assert sum(len(split) for split in load_assembled(out).values()) == 80
    with pytest.raises(AssemblyError, match="holds no index"):
        load_index(tmp_path)


def test_paths_in_place_of_bytes(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "mine", 10)
    for embed in (True, False):
        assemble("folder", tmp_path / str(embed), data_root=root, domain="ct", embed=embed)
    embedded, linked = rows_of(tmp_path / "True"), rows_of(tmp_path / "False")
    check_rows(linked)
    assert [row["images"][0].tobytes() for row in embedded] == [
        row["images"][0].tobytes() for row in linked
    ]
    cells = pq.read_table(tmp_path / "False" / "train-00000.parquet")["images"].to_pylist()
    assert all(image["bytes"] is None for images in cells for image in images)


def index_of(rows: list[tuple[str, str, str, int | None]]) -> pa.Table:
    """An index of (patient, split, content, look) rows."""
    lines = [
        {"id": str(n), "domain": "ct", "dataset": "d", "answers": ["a"], "shard": "s"}
        | dict(zip(("patient_id", "split", "content", "look"), row, strict=True))
        | {"position": n}
        for n, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(lines, INDEX_SCHEMA)


def test_the_leak_report_counts_what_the_splits_share() -> None:
    rows = [
        ("p0", "train", "c0", 0b0000),
        ("p0", "train", "c1", 0b0000),  # the same patient looks alike: no leak
        ("p1", "train", "c2", 0b111100000),
        ("p2", "test", "c3", 0b111100001),  # one bit apart, another patient, another side
        ("p3", "test", "c4", 0b111111110000000),
        ("p4", "test", "c4", 0b111111110000000),  # a copy on the same side
        ("p5", "test", "c5", None),
        ("p6", "train", "c6", None),
    ]
    one = leak_report(index_of(rows))["d"]
    assert (one.rows, one.patients, one.patients_across) == (8, 7, 0)
    assert (one.copies, one.copies_across) == (2, 0)
    assert (one.near_copies, one.near_copies_across) == (4, 2)
    bad = leak_report(index_of([("p0", "train", "c", 1), ("p0", "test", "c", 1 << 63)]))["d"]
    assert (bad.patients_across, bad.copies_across, bad.near_copies) == (1, 2, 0)
    assert "1 patients, 2 of 2 copies, 0 of 0 look-alikes" in leak_text({"d": bad})
    assert leak_report(index_of([])) == {}


def test_the_report_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = class_tree(tmp_path / "mine", 20)
    (root / "benign" / "03.png").write_bytes((root / "malignant" / "11.png").read_bytes())
    assembly = assemble("folder", tmp_path / "out", data_root=root, domain="ct")
    assert assembly.leaks["mine"].copies == 2 and assembly.leaks["mine"].copies_across == 0
    assert "mine  40 rows of 40 patients; on two sides: 0 patients" in capsys.readouterr().out
