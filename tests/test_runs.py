"""Runs as users start them: papermill in a subprocess, and the manifest it leaves behind."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from matplotlib.figure import Figure
from run_notebooks import BODY, FINISH, PARAMETERS, SAVING, SETUP, command, papermill

from qoq_lib.runs import (
    ParameterError,
    RunError,
    derive_seed,
    project_root,
    read_result,
    resume_command,
    sha256_file,
    start_run,
    write_json_atomic,
    write_text_atomic,
)

Namespace = Callable[..., dict[str, Any]]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QOQ_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A notebook of the project's shape."""
    cells = [nbformat.v4.new_code_cell(text) for text in (PARAMETERS, SETUP, BODY, FINISH)]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    path = tmp_path / "source.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def namespace() -> Namespace:
    """What ``globals()`` holds in a notebook's setup cell."""

    def build(**values: Any) -> dict[str, Any]:
        defaults = {"run_id": "", "model_size": "tiny", "seed": 0, "fail": False, "wait": False}
        return {"In": ["", PARAMETERS, SETUP], **defaults, **values}

    return build


def stage_entry(runs: Path, run_id: str = "tiny") -> dict[str, Any]:
    content = json.loads((runs / run_id / "run.json").read_text())
    assert content["schema_version"] == 1
    assert content["run_id"] == run_id
    return dict(content["stages"]["03_test"])


def started_in_background(
    source: Path, runs: Path, module: str = "papermill"
) -> tuple[subprocess.Popen[bytes], int]:
    """A papermill run at work in its endless cell: the process and its kernel's pid."""
    process = subprocess.Popen(
        command(source, module, wait="true"),
        cwd=source.parent,
        stderr=subprocess.DEVNULL,
        # A shell's background job inherits SIGINT ignored; a person's Ctrl-C does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 90
    while not (runs / "tiny" / "predictions" / "a.txt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline, "the notebook did not start within 90 s"
        time.sleep(0.1)
    return process, stage_entry(runs)["pid"]


def wait_until_dead(pid: int) -> None:
    try:
        psutil.Process(pid).wait(timeout=60)
    except psutil.NoSuchProcess:
        return


def test_a_run_leaves_its_manifest_and_its_result(runs: Path, source: Path) -> None:
    done = papermill(source, run_id="first", seed="5")
    assert done.returncode == 0, done.stderr
    entry = stage_entry(runs, "first")
    assert entry["status"] == "completed"
    assert entry["parameters"]["seed"] == 5
    assert entry["seeds"] == {
        "seed": 5,
        **{name: derive_seed(5, name) for name in ("python", "numpy", "torch")},
    }
    assert entry["metrics"] == {"reward": 0.61, "loss": None}
    assert entry["dataset"] == {"fingerprint": "abc", "rows": {"train": 3}}
    file = runs / "first" / "predictions" / "a.txt"
    assert entry["artefacts"] == {"predictions/a.txt": sha256_file(file)}
    assert entry["lock_sha256"] in {
        sha256_file(lock) for lock in (project_root() / "requirements").glob("*.txt")
    }
    assert entry["packages"]["torch"]
    assert entry["hardware"]["cpus"] >= 1
    assert entry["wall_seconds"] > 0
    text = (runs / "first" / "run.json").read_text()
    assert str(Path.home()) + "/" not in text
    result = read_result(source.with_name("out.ipynb"))
    assert result == {"run_id": "first", "stage": "03_test", "metrics": entry["metrics"]}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sede": "1"}, "ParameterError: Unknown parameter 'sede': did you mean 'seed'?"),
        ({"run_id": "../x"}, "RunError: The run_id '../x' is not a folder name"),
    ],
)
def test_a_bad_parameter_stops_the_notebook_and_touches_nothing(
    runs: Path, source: Path, given: dict[str, str], sentence: str
) -> None:
    earlier = write_text_atomic(runs / "tiny" / "kept.txt", "kept")
    done = papermill(source, **given)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "pydantic" not in done.stderr  # the sentence alone, without our inner traceback
    assert list(runs.rglob("*.*")) == [earlier]
    with pytest.raises(RunError, match="Code cell 3 of 5"):
        read_result(source.with_name("out.ipynb"))


def test_a_failing_cell_is_on_record(runs: Path, source: Path) -> None:
    assert papermill(source, fail="true").returncode != 0
    entry = stage_entry(runs)
    assert entry["status"] == "failed"
    assert entry["ended"] > entry["started"]
    with pytest.raises(RunError, match="failed with ValueError: broken on purpose"):
        read_result(source.with_name("out.ipynb"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_is_interrupted_for_the_next_start(
    runs: Path, source: Path, namespace: Namespace, capsys: pytest.CaptureFixture[str], how: int
) -> None:
    process, kernel = started_in_background(source, runs)
    with pytest.raises(RunError, match=f"Process {kernel} is running 03_test of run 'tiny'"):
        start_run("03_test", namespace())
    os.kill(kernel if how == signal.SIGKILL else process.pid, how)
    assert process.wait(timeout=60) != 0
    wait_until_dead(kernel)
    run = start_run("03_test", namespace())
    assert run.previous is not None
    assert run.previous["status"] == "interrupted"
    assert "Run 'tiny': an earlier 03_test was interrupted" in capsys.readouterr().out
    assert stage_entry(runs)["status"] == "running"
    run.finish({})


@pytest.mark.parametrize("saves", [True, False])
def test_sigterm_is_handed_to_the_notebook_and_ends_it_with_0_where_it_saves(
    runs: Path, source: Path, namespace: Namespace, saves: bool
) -> None:
    if saves:
        notebook = nbformat.read(source, as_version=4)
        notebook.cells[2].source = BODY.split("file =")[0] + SAVING
        nbformat.write(notebook, source)
    process, kernel = started_in_background(source, runs, "qoq_lib.runs.papermill")
    process.terminate()
    code = process.wait(timeout=60)
    wait_until_dead(kernel)
    assert code == 0 if saves else code != 0
    assert (runs / "tiny" / "predictions" / "saved.txt").exists() == saves
    assert stage_entry(runs)["status"] == ("interrupted" if saves else "running")
    with pytest.raises(RunError, match="failed with SystemExit" if saves else "did not run"):
        read_result(source.with_name("out.ipynb"))
    run = start_run("03_test", namespace())
    assert run.was_cut_off
    assert resume_command(run.path) == "papermill notebooks/03_test.ipynb out.ipynb -p run_id tiny"
    run.finish({})
    assert resume_command(run.path) is None


def test_a_setup_cell_run_again_takes_over_its_own_stage(runs: Path, namespace: Namespace) -> None:
    start_run("03_test", namespace())
    again = start_run("03_test", namespace())
    assert again.previous is not None
    assert again.previous["status"] == "interrupted"
    again.finish({"reward": 1})
    third = start_run("03_test", namespace())
    assert third.previous is not None
    assert third.previous["metrics"] == {"reward": 1}
    third.finish({})


def test_a_pid_in_use_again_is_not_the_old_run(runs: Path, namespace: Namespace) -> None:
    start_run("02_other", namespace()).finish({})
    path = runs / "tiny" / "run.json"
    content = json.loads(path.read_text())
    content["stages"]["02_other"].update(
        status="running", pid=os.getppid(), started="2001-01-01T00:00:00.000+00:00"
    )
    write_json_atomic(path, content)
    start_run("03_test", namespace()).finish({})
    assert json.loads(path.read_text())["stages"]["02_other"]["status"] == "interrupted"


def test_bad_places_are_refused(
    tmp_path: Path, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("QOQ_RUNS", str(tmp_path / "file" / "runs"))
    with pytest.raises(RunError, match="Cannot create the folder .* set QOQ_RUNS"):
        start_run("03_test", namespace())
    for run_id in ("a/b", "..", "a..b", "a\\b", ".hidden", "x" * 101):
        with pytest.raises(RunError, match="is not a folder name"):
            start_run("03_test", namespace(run_id=run_id))


def test_a_stage_that_only_looks_makes_no_run_of_a_misspelt_name(
    runs: Path, namespace: Namespace
) -> None:
    start_run("03_test", namespace(run_id="demo")).finish({})
    start_run("04_test", namespace(run_id="demo"), existing=True).finish({})
    with pytest.raises(
        RunError, match=r"^There is no run 'demoo' in .*: .* there \(demo\), or run"
    ):
        start_run("04_test", namespace(run_id="demoo"), existing=True)
    assert [path.name for path in runs.iterdir()] == ["demo"]


def test_an_unreadable_manifest_is_not_overwritten(runs: Path, namespace: Namespace) -> None:
    path = write_text_atomic(runs / "tiny" / "run.json", "{half")
    with pytest.raises(RunError, match="choose another run_id"):
        start_run("03_test", namespace())
    assert path.read_text() == "{half"


def test_bad_artefacts_are_refused(runs: Path, namespace: Namespace) -> None:
    run = start_run("03_test", namespace())
    with pytest.raises(RunError, match="does not exist"):
        run.finish({}, artefacts=[run.path / "missing.txt"])
    with pytest.raises(RunError, match="outside the run folder"):
        run.finish({}, artefacts=[__file__])
    write_text_atomic(run.folder("checkpoints") / "final" / "weights.bin", "w")
    run.finish({}, artefacts=["checkpoints"])
    assert list(stage_entry(runs)["artefacts"]) == ["checkpoints/final/weights.bin"]


def test_folders_and_figures(runs: Path, namespace: Namespace) -> None:
    run = start_run("03_test", namespace())
    with pytest.raises(RunError, match="not the name of one folder"):
        run.folder("../elsewhere")
    digests = set()
    for _ in range(2):
        figure = Figure()
        figure.subplots().plot([0, 1], label="reward")
        digests.add(tuple(sha256_file(path) for path in run.save_figure(figure, "curve")))
    assert len(digests) == 1
    assert sorted(path.name for path in run.folder("figures").iterdir()) == [
        "curve.png",
        "curve.svg",
    ]
    run.finish({})


def test_parameters_are_checked_before_the_folder_is_made(runs: Path, namespace: Namespace) -> None:
    with pytest.raises(ParameterError):
        start_run("03_test", namespace(model_size="70b"))
    assert not runs.exists()
