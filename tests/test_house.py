"""Rules of the house: short files, and packages that import in one direction."""

import ast
from pathlib import Path

from qoq_lib.runs import project_root

ROOT = project_root()
LONGEST = 300
LAYERS = (
    ("domains", "answers", "boxes"),
    ("runs",),
    ("hub_errors",),
    ("data",),
    ("model",),
    ("training",),
    ("evaluation",),
    ("publishing",),
)
"""A package imports from its own layer and those before it."""


def imported(path: Path) -> set[str]:
    """The parts of ``qoq_lib`` that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("qoq_lib.")}


def test_files_are_short() -> None:
    folders = ("qoq_lib", "benchmarks", "tests")
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert len(lengths) > 300
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST}


def test_imports_run_one_way() -> None:
    place = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    parts = {path.stem for path in (ROOT / "qoq_lib").iterdir()}
    assert parts - {"__init__", "__pycache__", "py"} == set(place)
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for part in place
        for path in [ROOT / "qoq_lib" / f"{part}.py", *(ROOT / "qoq_lib" / part).rglob("*.py")]
        if path.is_file()
        for name in imported(path)
        if place[name] > place[part]
    ]
    assert not wrong
