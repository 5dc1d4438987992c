"""What stands beside weights or traces as their evidence: ``run.json``, notebooks, data cards.

Notebooks show images and completions, so their outputs leave only where every data set is open for
both; otherwise each keeps the result object of its last cell and no other output.
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from qoq_lib.data.cards import Card
from qoq_lib.publishing.policy import judge
from qoq_lib.publishing.record import Stage, Stages
from qoq_lib.runs import RESULT_MIME, project_root, write_json_atomic, write_text_atomic
from qoq_lib.runs.manifest import SCHEMA_VERSION

_HOME = re.compile(r"(?:/home|/Users)/[^/\s\"'\\]+|/root(?=/)|[A-Z]:\\{1,2}Users\\{1,2}[^\\\s\"']+")


def write_evidence(
    run_folder: Path,
    stages: Stages,
    cards: Mapping[str, Card],
    datasets: Iterable[str],
    out: Path,
) -> tuple[str, ...]:
    """Write ``run.json``, ``notebooks/`` and ``data_cards/`` into the folder ``out``.

    Args:
        run_folder: the run.
        stages: the entries of its ``run.json`` that are published.
        cards: the card of each data set that is in the release.
        datasets: all that the run's notebooks may show something of.
        out: a folder that exists.

    Returns:
        Names of the notebooks that were there.
    """
    write_json_atomic(out / "run.json", published_manifest(run_folder, stages))
    (out / "data_cards").mkdir(exist_ok=True)
    for card in {card.name: card for card in cards.values()}.values():
        shutil.copyfile(
            project_root() / "data_cards" / f"{card.name}.md",
            out / "data_cards" / f"{card.name}.md",
        )
    shown = _may_be_shown(datasets)
    found = [name for name in stages if (run_folder / f"{name}.ipynb").is_file()]
    for name in found:
        notebook = nbformat.read(run_folder / f"{name}.ipynb", as_version=4)
        cleaned = _cleaned(notebook, stages[name], shown)
        write_text_atomic(out / "notebooks" / f"{name}.ipynb", nbformat.writes(cleaned) + "\n")
    return tuple(found)


def published_manifest(run_folder: Path, stages: Stages) -> dict[str, Any]:
    """``run.json`` with the published stages alone."""
    return {"schema_version": SCHEMA_VERSION, "run_id": run_folder.name, "stages": dict(stages)}


def _may_be_shown(datasets: Iterable[str]) -> bool:
    names = tuple(datasets)
    verdicts = [*judge(names, "images", gated=False), *judge(names, "traces", gated=False)]
    return all(one.allowed for one in verdicts)


def _cleaned(notebook: Any, entry: Stage, shown: bool) -> Any:
    """The notebook without paths of the machine that ran it, and without what may not be shown."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.source = _portable(cell.source)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.source = "\n".join(f"{name} = {value!r}" for name, value in _given(cell, entry))
        if cell.cell_type == "code":
            cell.outputs = [_portable(one) for one in cell.outputs if shown or _is_result(one)]
    return notebook


def _given(cell: Any, entry: Stage) -> list[tuple[str, Any]]:
    """The parameters that the cell sets, as ``run.json`` holds them: without paths."""
    names = re.findall(r"^(\w+) *=", cell.source, re.MULTILINE)
    return [(name, entry["parameters"].get(name)) for name in names]


def _is_result(output: Any) -> bool:
    return RESULT_MIME in output.get("data", {})


def _portable(value: Any, mime: str = "") -> Any:
    """``value`` with home folders and the project's folder replaced in every text."""
    if isinstance(value, dict):
        return type(value)({key: _portable(item, key) for key, item in value.items()})
    if isinstance(value, list):
        return [_portable(item, mime) for item in value]
    if not isinstance(value, str) or mime.startswith("image/") and mime != "image/svg+xml":
        return value
    return _HOME.sub("~", value.replace(str(project_root()), "."))
