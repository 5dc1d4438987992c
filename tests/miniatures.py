"""Miniature data sets on disk, and what came of them, for the tests of assembly."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from qoq_lib.data.assemble import assemble_sources, load_assembled
from qoq_lib.data.sources.source import Source
from qoq_lib.data.storage import Assembly


def draw(path: Path, seed: int) -> None:
    """Write a small grey image whose pixels depend on ``seed`` alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def class_tree(root: Path, per_class: int = 20) -> Path:
    """``root/{benign,malignant}/<n>.png``, all different."""
    for offset, label in enumerate(("benign", "malignant")):
        for index in range(per_class):
            draw(root / label / f"{index:02d}.png", 1000 * offset + index)
    return root


def table_tree(root: Path, lines: list[str], header: str = "file,label,patient") -> Path:
    """An image per line of ``labels.csv``, drawn from the line's number."""
    for index, line in enumerate(lines):
        draw(root / line.split(",")[0], index)
    (root / "labels.csv").write_text("\n".join([header, *lines, ""]))
    return root


def rows_of(out: Path) -> list[dict]:
    """All rows of an assembly, in the order of the splits."""
    return [row for split in load_assembled(out).values() for row in split]


def same_bytes(out: Path) -> dict[str, bytes]:
    """Content of the files of an assembly by name."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def assembled(source: Source, root: Path, out: Path) -> tuple[Assembly, dict[str, dict]]:
    """One source below ``root``, assembled without what is damaged; its rows by record id."""
    assembly = assemble_sources([source], root, out, name=source.name, on_error="skip")
    return assembly, {row["id"].removeprefix(f"{source.name}/"): row for row in rows_of(out)}


def one_side_each(rows: Iterable[dict]) -> bool:
    """Whether no patient is in two splits."""
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["patient_id"], set()).add(row["split"])
    return all(len(splits) == 1 for splits in sides.values())
