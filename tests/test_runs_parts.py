"""The parts a run is made of: atomic files, paths, seeds, environment and progress lines."""

import itertools
import json
import subprocess
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from qoq_lib.runs import (
    Environment,
    RunError,
    derive_seed,
    progress,
    project_root,
    runs_root,
    write_json_atomic,
    write_text_atomic,
)
from qoq_lib.runs.manifest import plain


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = write_json_atomic(tmp_path / "metrics.json", {"reward": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(path, {"reward": float("nan")})
    (tmp_path / "folder" / "child").mkdir(parents=True)
    with pytest.raises(RunError, match="Cannot write"):
        write_text_atomic(tmp_path / "folder", "a file where a folder is")
    assert json.loads(path.read_text()) == {"reward": 1}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder", "metrics.json"]


def test_paths_in_the_manifest_name_no_home(tmp_path: Path) -> None:
    here = {
        "inside": tmp_path / "data" / "a.parquet",
        "project": project_root() / "configs",
        "elsewhere": "/srv/someone/kit",
        "home": "~/kit",
        "model": "Qwen/Qwen2.5-VL-7B-Instruct",
    }
    assert plain(here, tmp_path) == {
        "inside": "data/a.parquet",
        "project": "configs",
        "elsewhere": "…/kit",
        "home": "…/kit",
        "model": "Qwen/Qwen2.5-VL-7B-Instruct",
    }


def test_roots_do_not_depend_on_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QOQ_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert runs_root() == project_root() / "runs"
    assert (project_root() / "qoq_lib").is_dir()


def test_seeds_are_stable_and_differ_by_name() -> None:
    assert derive_seed(0, "data") == derive_seed(0, "data")
    seeds = {derive_seed(seed, name) for seed in range(50) for name in ("data", "model")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_environment_has_a_text_and_an_html_form() -> None:
    environment = Environment.collect()
    assert "Packages" in repr(environment)
    html = environment._repr_html_()
    assert "var(--jp-content-font-color1, inherit)" in html
    assert environment.python in html


def test_git_facts_follow_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qoq_lib.runs.environment.project_root", lambda: tmp_path)
    assert Environment.collect().git == {"sha": None, "dirty": None}
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    git = Environment.collect().git
    assert len(git["sha"]) == 40
    assert git["dirty"] is False
    (tmp_path / "new.txt").write_text("uncommitted")
    changed = Environment.collect()
    assert changed.git == {"sha": git["sha"], "dirty": True}
    assert "uncommitted changes" in repr(changed)


def test_headless_progress_is_a_few_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert list(progress(500, "Training")) == list(range(500))
    assert list(progress(iter("ab"), "Reading")) == ["a", "b"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("Training: 1/500 (0%)")
    assert lines[1].startswith("Training: 500/500 (100%)")
    assert lines[2].startswith("Reading: 1 done")


def test_a_long_run_says_how_long_once_a_minute_and_a_resumed_one_counts_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    clock = itertools.count(0.0, 6.0)
    timer = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(import_module("qoq_lib.runs.progress"), "time", timer)
    assert list(progress(2000, "Training", done=800, note=lambda: "reward 0.5")) == [
        *range(800, 2000)
    ]
    lines = capsys.readouterr().out.splitlines()
    assert 100 < len(lines) < 140  # of 1,200 steps in two hours
    assert lines[0] == "Training: 801/2000 (40%), 6 s, 6 s each, about 1:59 h left, reward 0.5"
    assert lines[-1] == "Training: 2000/2000 (100%), 2:00 h, 6 s each, reward 0.5"


def test_a_watched_run_has_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    assert list(progress(3, "Training", note=lambda: "reward 0.5")) == [0, 1, 2]
    said = capsys.readouterr().err
    assert "100%" in said and "reward 0.5" in said
