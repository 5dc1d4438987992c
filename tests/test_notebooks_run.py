"""Every notebook, executed headlessly at tiny size; the stops a first-time user meets."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import foreign_process
import numpy as np
import pytest
from hub_releases import contents, hub_environment
from hub_server import HubServer

from qoq_lib.model.loading import load_size
from qoq_lib.publishing.release import write_release
from qoq_lib.runs import RunError, project_root, read_result

ROOT = project_root()
SMALL = {
    "01_assemble_data": ["-p", "rows", "240"],
    "02_align_modalities": ["-p", "steps", "3"],
    "03_drpo_train": ["-p", "steps", "3"],
    "04_reward_curves": [],
    "05_domain_analysis": [],
    "06_publish_to_hub": [],
    "00_quickstart": [],
    "07_explore_traces": [],
    "08_drpo_vs_baselines": ["-p", "study", "demo"],
}
FOLDERS = {"models": "model", "datasets": "traces"}


def command(stem: str, out: Path, *options: str) -> list[str]:
    notebook = str(ROOT / "notebooks" / f"{stem}.ipynb")
    call = [sys.executable, "-m", "papermill", notebook, str(out), "-k", "python3"]
    return [*call, "--no-progress-bar", "-p", "model_size", "tiny", *options]


def environment(runs: Path) -> dict[str, str]:
    return os.environ | {"QOQ_RUNS": str(runs), "HF_HUB_OFFLINE": "1"}


def execute(
    stem: str,
    out: Path,
    runs: Path,
    cwd: Path,
    *options: str,
    timeout: float = 600,
    hub: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(stem, out, *options),
        cwd=cwd,
        env=environment(runs) | dict(hub or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def printed(notebook: Path) -> str:
    """Everything that an executed notebook wrote to its standard output."""
    cells = json.loads(notebook.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(
        line for output in outputs if output.get("name") == "stdout" for line in output["text"]
    )


def wait_until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs root in which all notebooks ran in order, started from a foreign folder."""
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
    plan = load_size("tiny").training
    rollouts = 3 * plan.questions_per_step * plan.rollouts
    assert manifest["stages"]["03_drpo_train"]["metrics"]["rollouts"] == rollouts
    assert len(list((run / "rollouts").glob("step-*.parquet"))) == 3
    assert {path.stem for path in (run / "predictions").glob("*.parquet")} == {
        *("untrained", "aligned", "trained")
    }
    scores = json.loads((run / "metrics.json").read_text())
    assert scores
    for private in (str(Path.home()), str(chain)):
        assert private not in (run / "run.json").read_text()


def test_curves_of_a_run_in_progress_lack_its_log_and_say_so(chain: Path, tmp_path: Path) -> None:
    shutil.copytree(chain / "small" / "rollouts", tmp_path / "now" / "rollouts")
    (tmp_path / "now" / "rollouts" / "step-00000004.part").write_bytes(b"half")
    done = execute(
        "04_reward_curves", tmp_path / "o.ipynb", tmp_path, tmp_path, "-p", "run_id", "now"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Not measured: entropy, kl, clipped." in printed(tmp_path / "o.ipynb")
    assert read_result(tmp_path / "o.ipynb")["metrics"]["steps"] == 3


@pytest.mark.parametrize("stem", ["04_reward_curves", "05_domain_analysis"])
def test_a_run_that_is_not_there_stops_in_one_sentence_and_stays_so(
    tmp_path: Path, stem: str
) -> None:
    done = execute(stem, tmp_path / "o.ipynb", tmp_path / "runs", tmp_path)
    assert done.returncode != 0
    assert "RunError: There is no run 'tiny' in" in done.stderr and "notebook 03" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_publisher_sends_nothing_unasked(chain: Path) -> None:
    said = printed(chain / "06_publish_to_hub.ipynb")
    assert "your-name/qoq-med (model, private, not gated)" in said and "nothing was sent" in said
    assert read_result(chain / "06_publish_to_hub.ipynb")["metrics"]["published"] == {}


def test_the_run_goes_to_a_hub_and_its_model_answers_from_there(
    chain: Path, tmp_path: Path
) -> None:
    options = ("-p", "run_id", "small", "-p", "repo_id", "writer/qoq", "-p", "tag", "v1")
    with HubServer().running() as hub:
        there, out = hub_environment(hub, tmp_path / "home"), tmp_path / "o.ipynb"
        call = ("06_publish_to_hub", out, chain, tmp_path, *options, "-p", "dry_run", "False")
        done = execute(*call, hub=there)
        assert done.returncode == 0, done.stderr[-3000:]
        heads = {}
        for kinds, name in (("models", "writer/qoq"), ("datasets", "writer/qoq-traces")):
            repo = hub.repos[kinds, name]
            assert repo.private and repo.tags == {"v1": repo.head.oid} and len(repo.commits) == 2
            assert repo.files == contents(chain / "small" / "release" / FOLDERS[kinds])
            heads[f"{hub.address}/{'datasets/' * (kinds == 'datasets')}{name}"] = repo.head.oid
        assert read_result(out)["metrics"]["published"] == heads
        subprocess.run(
            [sys.executable, "-I", foreign_process.__file__, "writer/qoq"],
            cwd=tmp_path,
            env=there,
            check=True,
        )
    here = foreign_process.answer(chain / "small" / "checkpoints" / "trained")
    for name, value in np.load(tmp_path / "qoq.npz").items():
        assert np.array_equal(value, here[name]), name


def test_the_same_run_is_released_in_the_same_bytes(chain: Path, tmp_path: Path) -> None:
    run = chain / "small"
    write_release(run, tmp_path / "again", "your-name/qoq-med")
    ours = contents(tmp_path / "again")
    assert "model/README.md" in ours and "traces/README.md" in ours
    write_release(run, tmp_path / "once_more", "your-name/qoq-med")
    assert contents(tmp_path / "once_more") == ours


def test_the_quickstart_asks_the_newest_trained_model(chain: Path) -> None:
    said = printed(chain / "00_quickstart.ipynb")
    assert "Model: small/checkpoints/trained" in said and "RANDOM WEIGHTS" not in said
    figures = {path.name for path in (chain / "small" / "figures").glob("00_*.png")}
    assert figures == {"00_image.png", "00_ecg.png", "00_both.png"}
    assert read_result(chain / "00_quickstart.ipynb")["metrics"]["questions"] == 3


def test_the_quickstart_says_that_random_weights_mean_nothing(tmp_path: Path) -> None:
    done = execute("00_quickstart", tmp_path / "o.ipynb", tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    said = printed(tmp_path / "o.ipynb")
    assert "NOTE: RANDOM WEIGHTS: the answers below mean nothing." in said and "notebook 03" in said
    assert read_result(tmp_path / "o.ipynb")["metrics"]["true_answer_known"] == 3


def test_a_study_of_which_nothing_is_finished_is_not_shown(tmp_path: Path) -> None:
    options = ("-p", "study", "demo", "-p", "run_arms", "False")
    done = execute("08_drpo_vs_baselines", tmp_path / "o.ipynb", tmp_path, tmp_path, *options)
    assert done.returncode != 0
    assert "StudyError: No run of study 'demo' is finished in" in done.stderr
    assert not (tmp_path / "study" / "data").exists()


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


@pytest.mark.parametrize(
    "name, value, near",
    [("stepz", "3", "steps"), ("overrides", "training.rolouts=2", "training.rollouts?")],
)
def test_an_unknown_parameter_stops_before_anything_slow(
    tmp_path: Path, name: str, value: str, near: str
) -> None:
    done = execute("03_drpo_train", tmp_path / "o.ipynb", tmp_path, tmp_path, "-p", name, value)
    assert done.returncode != 0
    assert name in done.stderr and near in done.stderr
    assert not (tmp_path / "tiny" / "data").exists()


def test_training_stopped_by_sigterm_exits_with_0_and_goes_on_where_it_was(
    chain: Path, tmp_path: Path
) -> None:
    run = tmp_path / "stopped"
    shutil.copytree(chain / "small" / "data", run / "data")
    shutil.copytree(chain / "small" / "checkpoints" / "aligned", run / "checkpoints" / "aligned")
    options = ("-p", "run_id", "stopped", "-p", "steps", "25")
    call = command("03_drpo_train", tmp_path / "first.ipynb", *options)
    call[call.index("papermill")] = "qoq_lib.runs.papermill"
    first = subprocess.Popen(
        call,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    fifth = run / "rollouts" / "step-00000005.parquet"
    wait_until(fifth.exists, 180, "the fifth step")
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=60) == 0
    stopped = re.search(
        r"Stopped by SIGTERM at step (\d+) of 25; ", printed(tmp_path / "first.ipynb")
    )
    assert stopped
    stage = json.loads((run / "run.json").read_text())["stages"]["03_drpo_train"]
    assert stage["status"] == "interrupted"
    with pytest.raises(RunError, match="SystemExit"):  # it is no result
        read_result(tmp_path / "first.ipynb")

    again = execute("03_drpo_train", tmp_path / "second.ipynb", tmp_path, tmp_path, *options)
    assert again.returncode == 0, again.stderr[-3000:]
    said = printed(tmp_path / "second.ipynb")
    assert f"Resuming from checkpoint-{stopped[1]}." in said
    assert "an earlier 03_drpo_train was interrupted" in said
    assert len(list((run / "rollouts").glob("step-*.parquet"))) == 25
    assert read_result(tmp_path / "second.ipynb")["metrics"]["steps"] == 25


@pytest.mark.slow
def test_training_alone_builds_data_and_aligned_checkpoint_and_says_so(tmp_path: Path) -> None:
    done = execute("03_drpo_train", tmp_path / "out.ipynb", tmp_path, tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    said = printed(tmp_path / "out.ipynb")
    assert "embedded PHANTOM" in said and "notebook 01 assembles real data" in said
    assert "aligning the base model first" in said
    metrics = read_result(tmp_path / "out.ipynb")["metrics"]
    assert metrics["reward_last"] > metrics["reward_first"]
