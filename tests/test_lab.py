"""Notebooks in a real JupyterLab: run as a reader runs them, looked at in both themes.

Run by ``make test-lab``; the screenshots are left in ``runs/lab_screenshots``.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab
import pytest
from test_notebooks_run import SMALL, execute

from qoq_lib.runs import project_root, read_result, runs_root

pytestmark = pytest.mark.lab

SHOWN = sorted(
    path.stem
    for path in (project_root() / "notebooks").glob("*.ipynb")
    if path.name[:2] in {"00", "04", "05", "07"}
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with lab.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def notebooks(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the notebooks, whose default run is trained for three steps."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(project_root() / "notebooks", root / "notebooks")
    for stem in ("01_assemble_data", "02_align_modalities", "03_drpo_train"):
        done = execute(stem, root / f"{stem}.ipynb", root / "runs", root, *SMALL[stem])
        assert done.returncode == 0, done.stderr[-3000:]
    return root / "notebooks"


@pytest.fixture(scope="module")
def server(notebooks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with lab.jupyterlab(notebooks, folder, notebooks.parent / "runs") as url:
        yield url


@pytest.mark.parametrize("stem", SHOWN)
def test_a_notebook_runs_in_the_lab_and_is_readable_in_both_themes(
    browser: Any, server: str, notebooks: Path, stem: str
) -> None:
    lab.run_all_cells(browser, server.format(f"{stem}.ipynb"))
    assert read_result(notebooks / f"{stem}.ipynb")["stage"] == stem  # no cell failed
    manifest = json.loads((notebooks.parent / "runs" / "tiny" / "run.json").read_text())
    drawn = [name for name in manifest["stages"][stem]["artefacts"] if name.endswith(".png")]
    pictures = runs_root() / "lab_screenshots"
    pictures.mkdir(parents=True, exist_ok=True)
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        lab.show_whole_page(browser, theme)
        browser.save_screenshot(str(pictures / f"{stem}_{theme.split()[1].lower()}.png"))
        page = lab.look(browser)
        assert page["figures"] >= len(drawn) >= 3 and page["unloaded"] == 0
        assert page["corners"] == [[255, 255, 255, 255]] * page["figures"]  # a ground of their own
        assert page["tables"] >= 2
        assert page["cut"] == [] and page["faint"] == []
        assert set(re.findall(r"(\d+)%\|", page["text"])) <= {"100"}  # a bar of characters
        assert all(float(str(bar).rstrip("%")) >= 100 for bar in page["bars"])
