"""A run killed by SIGKILL and resumed ends like one that was left alone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qoq_lib.training.checkpoints import STATE_FILE, last_complete

ROOT = Path(__file__).resolve().parents[1]


def test_a_killed_and_resumed_run_has_the_same_rewards_and_weights_bit_for_bit() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/kill_and_resume.py", "--kills", "1", "--steps", "5"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "1 of 1 runs identical after a kill" in done.stdout


def checkpoint(folder: Path, step: int, complete: bool) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"half")
    if complete:
        (path / STATE_FILE).write_text("{}")
    return path


def test_a_half_written_checkpoint_is_never_resumed_from(tmp_path: Path) -> None:
    good = checkpoint(tmp_path, 9, complete=True)
    bad = checkpoint(tmp_path, 10, complete=False)
    assert last_complete(tmp_path) == good
    assert not bad.exists()


@pytest.mark.parametrize("steps", [[], [3]])
def test_nothing_complete_is_nothing_to_resume_from(tmp_path: Path, steps: list[Any]) -> None:
    for step in steps:
        checkpoint(tmp_path, step, complete=False)
    assert last_complete(tmp_path) is None
