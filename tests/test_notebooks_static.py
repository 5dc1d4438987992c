"""The shape every notebook keeps, checked without running it."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from qoq_lib.runs import ParameterError, project_root, read_parameters

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LONGEST = 15
MOST_PARAMETERS = 18
PRIVATE = re.compile(r"/home/|/Users/|/root\b|\bhf_[A-Za-z0-9]{20,}")


def problems(path: Path) -> list[str]:
    """Every rule that the notebook breaks, as sentences without a full stop."""
    notebook = nbformat.read(path, as_version=4)
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"is not a valid notebook: {error.message}"]
    cells = list(notebook.cells)
    code = [cell for cell in cells if cell.cell_type == "code"]
    found = []
    if dict(notebook.metadata.get("kernelspec", {})) != KERNELSPEC:
        found.append("has another kernel than python3")
    if PRIVATE.search(path.read_text(encoding="utf-8")):
        found.append("holds a home path or a token")
    if any(cell.outputs or cell.execution_count for cell in code):
        found.append("holds outputs")
    for number, (before, cell) in enumerate(zip([None, *cells], cells, strict=False), start=1):
        if cell.cell_type == "code":
            alone = before is None or before.cell_type != "markdown"
            found += [f"cell {number} has no text before it"] * alone
            is_list = "parameters" in cell.metadata.get("tags", [])  # a table more than code
            longest = MOST_PARAMETERS if is_list else LONGEST
            found += [f"cell {number} {problem}" for problem in code_problems(cell.source, longest)]
    return found + heading_problems(cells) + frame_problems(path.stem, code)


def code_problems(source: str, longest: int) -> list[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ["is not plain Python (a magic or a shell line?)"]
    found = []
    if code_lines(source) > longest:
        found.append(f"is longer than {longest} lines")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            found += [f"has the long function {node.name}"] * (length > LONGEST)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("get_ipython"):
            found.append("calls get_ipython")
    return found


def code_lines(source: str) -> int:
    lines = (line.strip() for line in source.splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)


def heading_problems(cells: list[Any]) -> list[str]:
    texts = [re.sub(r"```.*?```", "", c.source, flags=re.S) for c in cells if is_markdown(c)]
    titles = [line for text in texts for line in text.splitlines() if line.startswith("# ")]
    at_top = bool(cells) and is_markdown(cells[0]) and cells[0].source.startswith("# ")
    return [] if len(titles) == 1 and at_top else ["needs exactly one '# ' heading, at its top"]


def is_markdown(cell: Any) -> bool:
    return bool(cell.cell_type == "markdown")


def frame_problems(stem: str, code: list[Any]) -> list[str]:
    """The parameters cell, the setup cell and the last cell."""
    found = []
    tagged = [n for n, c in enumerate(code) if "parameters" in c.metadata.get("tags", [])]
    if tagged != [0]:
        return ["needs its first code cell, and no other, tagged 'parameters'"]
    try:
        parameters = read_parameters(code[0].source, {})
    except ParameterError as error:
        return [f"has a bad parameters cell: {error}"]
    if missing := {"run_id", "model_size", "seed"} - set(vars(parameters)):
        found.append(f"lacks the parameters {sorted(missing)}")
    if len(code) < 2 or f'start_run("{stem}", globals()' not in code[1].source:
        found.append(f'does not call start_run("{stem}", globals()) in its second code cell')
    if "run.finish(" not in code[-1].source:
        found.append("does not call run.finish( in its last code cell")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_keeps_the_shape(path: Path) -> None:
    assert problems(path) == []


def good() -> Any:
    new = nbformat.v4
    parameters = 'run_id: str = ""\nmodel_size: str = "tiny"  # tiny | 3b\nseed: int = 0'
    setup = 'from qoq_lib.runs import start_run\nrun = start_run("01_good", globals())'
    cells = [new.new_markdown_cell("# A title")]
    for source in (parameters, setup, "run.finish({})"):
        cells += [new.new_code_cell(source), new.new_markdown_cell("Text.")]
    cells[1].metadata["tags"] = ["parameters"]
    return new.new_notebook(cells=cells, metadata={"kernelspec": dict(KERNELSPEC)})


def written(notebook: Any, folder: Path) -> Path:
    path = folder / "01_good.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_good_notebook_has_no_problem(tmp_path: Path) -> None:
    assert problems(written(good(), tmp_path)) == []


@pytest.mark.parametrize(
    ("cell", "source", "problem"),
    [
        (0, "No title", "needs exactly one '# ' heading"),
        (2, "# A second title", "needs exactly one '# ' heading"),
        (1, "x = 1", "has a bad parameters cell"),
        (1, 'run_id: str = ""', "lacks the parameters ['model_size', 'seed']"),
        (1, 'model_size: str = "a"  # b | c', "has a bad parameters cell"),
        (3, "%matplotlib inline", "is not plain Python"),
        (3, "!pip install x", "is not plain Python"),
        (3, 'run = start_run("02_other", globals())', "does not call start_run"),
        (3, "\n".join(f"x{i} = 1" for i in range(16)), "is longer than 15 lines"),
        (3, "def f():\n" + "    # a remark\n" * 15 + "    pass", "has the long function f"),
        (3, 'get_ipython().system("ls")', "calls get_ipython"),
        (3, 'path = "/home/me/data"', "holds a home path"),
        (3, f'token = "hf_{"a" * 30}"', "holds a home path or a token"),
        (5, "pass", "does not call run.finish("),
    ],
)
def test_a_bad_cell_is_found(tmp_path: Path, cell: int, source: str, problem: str) -> None:
    notebook = good()
    notebook.cells[cell].source = source
    assert any(problem in found for found in problems(written(notebook, tmp_path)))


def test_bad_notebook_parts_are_found(tmp_path: Path) -> None:
    notebook = good()
    notebook.metadata["kernelspec"]["name"] = "conda-env"
    notebook.cells[1].metadata["tags"] = []
    notebook.cells[3].execution_count = 1
    del notebook.cells[4]
    found = " / ".join(problems(written(notebook, tmp_path)))
    assert "another kernel" in found
    assert "tagged 'parameters'" in found
    assert "holds outputs" in found
    assert "has no text before it" in found
