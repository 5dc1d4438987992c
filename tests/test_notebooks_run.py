"""Every notebook, executed headlessly at tiny size; the stops a first-time user meets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qoq_lib.runs import project_root, read_result

ROOT = project_root()
SMALL = {
    "01_assemble_data": ["-p", "rows", "240"],
    "02_align_modalities": ["-p", "steps", "3"],
    "03_drpo_train": ["-p", "steps", "3"],
    "04_reward_curves": [],
    "05_domain_analysis": [],
}


def execute(
    stem: str, out: Path, runs: Path, cwd: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / f"{stem}.ipynb")]
    command += [str(out), "-k", "python3", "--no-progress-bar", "-p", "model_size", "tiny"]
    environment = os.environ | {"QOQ_RUNS": str(runs), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, *options], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs root in which all five notebooks ran in order, started from a foreign folder."""
    runs = tmp_path_factory.mktemp("runs")
    for stem, options in SMALL.items():
        done = execute(stem, runs / f"{stem}.ipynb", runs, runs, "-p", "run_id", "small", *options)
        assert done.returncode == 0, done.stderr[-3000:]
    return runs


def test_the_notebooks_are_all_in_the_chain() -> None:
    assert sorted(SMALL) == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("stem", SMALL)
def test_each_notebook_completes_with_a_result(chain: Path, stem: str) -> None:
    result = read_result(chain / f"{stem}.ipynb")
    assert result["stage"] == stem
    assert result["metrics"]


def test_the_run_folder_tells_the_whole_story(chain: Path) -> None:
    run = chain / "small"
    manifest = json.loads((run / "run.json").read_text())
    assert {stage["status"] for stage in manifest["stages"].values()} == {"completed"}
    assert manifest["stages"]["03_drpo_train"]["dataset"]["fingerprint"]
    assert manifest["stages"]["03_drpo_train"]["metrics"]["rollouts"] == 3 * 192
    assert len(list((run / "rollouts").glob("step-*.parquet"))) == 3
    assert {path.stem for path in (run / "predictions").glob("*.parquet")} == {
        *("untrained", "aligned", "trained")
    }
    scores = json.loads((run / "metrics.json").read_text())
    assert scores
    for private in (str(Path.home()), str(chain)):
        assert private not in (run / "run.json").read_text()


def test_seven_billion_without_a_gpu_stops_in_one_sentence(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    done = execute(
        "03_drpo_train", tmp_path / "o.ipynb", tmp_path, tmp_path, "-p", "model_size", "7b"
    )
    assert done.returncode != 0
    assert "Qwen/Qwen2.5-VL-7B-Instruct) needs an NVIDIA GPU" in done.stderr
    assert not (tmp_path / "7b" / "data").exists()


def test_an_unknown_parameter_stops_before_anything_slow(tmp_path: Path) -> None:
    done = execute("03_drpo_train", tmp_path / "o.ipynb", tmp_path, tmp_path, "-p", "stepz", "3")
    assert done.returncode != 0
    assert "stepz" in done.stderr and "steps" in done.stderr
