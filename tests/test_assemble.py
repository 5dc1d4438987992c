"""Assembly of miniature data sets: what is kept, how it is split, and what never leaks."""

from pathlib import Path

import numpy as np
import pytest
from miniatures import class_tree, draw, rows_of, same_bytes, table_tree
from PIL import Image

from qoq_lib.data.assemble import assemble, assemble_sources, load_assembled, load_assembly
from qoq_lib.data.example import FEATURES, check_rows
from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.source import Source
from qoq_lib.data.splits import Case, assign_splits
from qoq_lib.data.storage import AssemblyError


def test_a_folder_per_class_becomes_rows(tmp_path: Path) -> None:
    root, out = class_tree(tmp_path / "mine"), tmp_path / "out"
    assembly = assemble("folder", out, data_root=root, domain="ultrasound")
    rows = rows_of(out)
    check_rows(rows)
    assert assembly.rows == {"ultrasound": {"train": 28, "validation": 4, "test": 8}}
    assert assembly.labels["mine"]["benign"] == {"train": 14, "validation": 2, "test": 4}
    assert {tuple(sorted(row["options"])) for row in rows} == {("benign", "malignant")}
    assert all(row["id"].split("/")[1] == row["answers"][0] for row in rows)
    assert all(row["mask"] is None and row["boxes"] is None for row in rows)
    assert load_assembled(out)["validation"].features == FEATURES
    assert load_assembly(out) == assembly


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_split(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "mine")
    prints = [
        assemble("folder", tmp_path / name, data_root=root, domain="mri", seed=seed).fingerprint
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert prints[0] == prints[1] != prints[2]
    assert same_bytes(tmp_path / "a") == same_bytes(tmp_path / "b")


def test_split_folders_are_official_and_validation_comes_from_train(tmp_path: Path) -> None:
    class_tree(tmp_path / "mine" / "Training", 16)
    for index in range(4):
        draw(tmp_path / "mine" / "Testing" / "benign" / f"{index}.png", 500 + index)
    assemble("folder", tmp_path / "out", data_root=tmp_path / "mine", domain="mri")
    rows = rows_of(tmp_path / "out")
    assert {row["id"].split("/")[1] for row in rows if row["split"] == "test"} == {"Testing"}
    assert sum(row["split"] == "validation" for row in rows) == 4


def test_a_table_carries_patients_demographics_report_and_mask(tmp_path: Path) -> None:
    lines = [f"i/{n}.png,{'a' if n % 2 else 'b'},p{n // 3},female,{n},seen {n}" for n in range(30)]
    root = table_tree(tmp_path / "mine", lines, "file, label ,patient,sex,age,report ")
    assemble("folder", tmp_path / "out", data_root=root, domain="ct", table="labels.csv")
    rows = rows_of(tmp_path / "out")
    check_rows(rows)
    by_patient: dict[str, set[str]] = {}
    for row in rows:
        by_patient.setdefault(row["patient_id"], set()).add(row["split"])
    assert len(by_patient) == 10 and all(len(splits) == 1 for splits in by_patient.values())
    row = next(row for row in rows if row["id"] == "mine/i/7.png")
    assert (row["sex"], row["age_years"], row["report"]) == ("F", 7.0, "seen 7")
    assert row["answers"] == ["a"] and row["patient_id"] == "mine/p2"


def test_latin_1_one_hot_columns_masks_and_repeated_lines(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = [f"{n},{int(n % 3 == 0)},{int(n % 3 == 1)},né" for n in range(30)]
    for n in range(30):
        draw(root / f"{n}.png", n)
        mask = np.zeros((12, 16), dtype=np.uint8)
        mask[2:5, 3:9] = 1
        Image.fromarray(mask).save(root / f"{n}_mask.png")
    text = "\n".join(["name ,x,y,note,", *(f"{line}," for line in [*lines, lines[0]])])
    (root / "t.csv").write_bytes(text.encode("latin-1"))
    reader = FolderTable(
        table="t.csv",
        file="{name}.png",
        label=("x", "y"),
        labels={"x": "first", "y": "second", "": "neither"},
        mask="{name}_mask.png",
        report="{note}",
    )
    source = Source("s", "dermoscopy", "none", ("first", "second", "neither"), (reader,))
    assemble_sources([source], root, tmp_path / "out", name="test")
    rows = rows_of(tmp_path / "out")
    check_rows(rows)
    assert len(rows) == 30 and {row["report"] for row in rows} == {"né"}
    assert {row["answers"][0] for row in rows} == {"first", "second", "neither"}
    assert all(row["boxes"] == [[3, 2, 9, 5]] for row in rows)
    assert all(row["mask"].size == row["images"][0].size == (16, 12) for row in rows)


def test_a_declared_subset_counts_what_is_not_there(tmp_path: Path) -> None:
    lines = [f"{n}.png,{'a' if n % 2 else 'b'},p{n}" for n in range(20)]
    root = table_tree(tmp_path / "mine", lines)
    with (root / "labels.csv").open("a") as table:
        table.write("elsewhere.png,a,p99\n19.png,unclear,p19\n")
    reader = FolderTable("labels.csv", "{file}", "{label}", {"a": "a", "b": "b", "unclear": None})
    source = Source("s", "ct", "none", ("a", "b"), (reader,), missing="skip")
    assembly = assemble_sources([source], root, tmp_path / "out", name="test")
    assert assembly.not_here == {"s": 1} and len(rows_of(tmp_path / "out")) == 20
    for path in root.glob("*.png"):
        path.unlink()
    with pytest.raises(AssemblyError, match="s has no record with a label below"):
        assemble_sources([source], root, tmp_path / "out", name="test")


def test_duplicates_never_straddle_and_are_reported(tmp_path: Path) -> None:
    lines = [f"{n}.png,{'a' if n % 2 else 'b'},p{n // 2}" for n in range(60)]
    root = table_tree(tmp_path / "mine", lines)
    for copy, original in (("10.png", "40.png"), ("11.png", "51.png"), ("20.png", "33.png")):
        (root / copy).write_bytes((root / original).read_bytes())
    assembly = assemble("folder", tmp_path / "out", data_root=root, domain="ct", table="labels.csv")
    split_of = {row["id"]: row["split"] for row in rows_of(tmp_path / "out")}
    assert [(one.ids, one.same_label) for one in assembly.duplicates] == [
        (["mine/10.png", "mine/40.png"], True),
        (["mine/11.png", "mine/51.png"], True),
        (["mine/20.png", "mine/33.png"], False),
    ]
    together = ("10", "11", "40", "41", "50", "51")  # p5 shares one file with p20, one with p25
    assert len({split_of[f"mine/{name}.png"] for name in together}) == 1
    assert split_of["mine/20.png"] == split_of["mine/33.png"]


def test_a_duplicate_of_an_official_test_file_leaves_the_training_split() -> None:
    cases = [Case("d", f"p{n}", ("a",), "train", (f"h{n}",)) for n in range(20)]
    cases += [Case("d", "q0", ("a",), "test", ("h3",)), Case("d", "q1", ("a",), "test", ("x",))]
    splits = assign_splits(cases, seed=0)
    assert splits[3] == splits[20] == splits[21] == "test"
    assert sorted(splits).count("test") == 3


def test_rare_labels_reach_the_test_split() -> None:
    labels = ["common"] * 200 + ["rare"] * 4
    cases = [Case("d", f"{n}", (label,), None, (f"{n}",)) for n, label in enumerate(labels)]
    for seed in range(5):
        splits = assign_splits(cases, seed)
        assert {"train", "test"} <= set(splits[200:])
        assert [splits.count(name) for name in ("train", "validation", "test")] == [143, 20, 41]


def test_the_phantom_is_assembled_with_all_its_splits(tmp_path: Path) -> None:
    assembly = assemble("phantom", tmp_path / "out", rows=180, seed=3)
    data = load_assembled(tmp_path / "out")
    assert {"train", "test"} <= set(data) and set(assembly.rows) == set(data["train"]["domain"])
    assert sum(map(len, data.values())) == sum(sum(c.values()) for c in assembly.rows.values())
    for split in data.values():
        check_rows(split)
