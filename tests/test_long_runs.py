"""A training that lasts: saved by the clock, stopped by a signal, memory or disk, resumed."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from datasets import Dataset
from transformers import Trainer

from qoq_lib.data.assemble import assemble
from qoq_lib.data.phantom import make_phantom
from qoq_lib.model.loading import load_size, tiny_model
from qoq_lib.runs import write_bytes_atomic
from qoq_lib.training import distributed
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.job import TrainingError, TrainingJob
from qoq_lib.training.launch import start as start_job
from qoq_lib.training.launch import train
from qoq_lib.training.methods import load_method
from qoq_lib.training.monitoring.limits import is_out_of_memory, limits_told
from qoq_lib.training.monitoring.log import read_log
from qoq_lib.training.rollouts import RolloutWriter, read_rollouts

STEPS, EVERY_STEP, NEVER = 6, 1e-9, 60.0
WEIGHTS = Path("checkpoints", "trained", "model.safetensors")

Hook = Callable[[int, Callable[[], object]], None]


@pytest.fixture(scope="module")
def rows() -> Dataset:
    train = make_phantom(200, seed=1).filter(lambda s: s == "train", input_columns="split")
    return train.select(range(16))


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    save_checkpoint(*tiny_model(0), folder)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Hook:
    """Lets something happen once, inside the pass of one step of the real training loop."""
    inner, due = Trainer.training_step, {}

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        due.pop(self.state.global_step + 1, lambda: None)()
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", step)
    return due.__setitem__


def job_of(aligned: Path, name: str = "drpo", minutes: float = NEVER, **plan: Any) -> TrainingJob:
    size = load_size("tiny")
    values = {"steps": STEPS, "questions_per_step": 2, "rollouts": 2, "micro_batch": 4} | plan
    size.training = size.training.model_copy(update=values)
    size.max_completion_length = 4
    return TrainingJob(start=aligned, size=size, method=load_method(name), save_minutes=minutes)


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def no_memory() -> None:
    torch.empty(1 << 50)


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("checkpoints/training/checkpoint-*"))


@pytest.mark.parametrize(("name", "told", "stops"), [("drpo", 2, 2), ("gspo", 1, 4), ("sft", 3, 3)])
def test_sigterm_saves_exits_with_0_and_the_resumed_run_is_that_of_one_left_alone(
    aligned: Path,
    rows: Dataset,
    tmp_path: Path,
    run: Path,
    at_step: Hook,
    capsys: pytest.CaptureFixture[str],
    name: str,
    told: int,
    stops: int,
) -> None:
    """With GSPO four steps share a generation, which no checkpoint holds: it stops after them."""
    job = job_of(aligned, name)
    whole = tmp_path / "whole"
    whole.mkdir()
    train(job, rows, whole)
    at_step(told, sigterm)
    with pytest.raises(SystemExit) as ended:
        train(job, rows, run)
    assert ended.value.code == 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert checkpoints(run) == [f"checkpoint-{stops}"]
    assert not (run / WEIGHTS).exists()
    said = capsys.readouterr().out
    assert f"Stopped by SIGTERM at step {stops} of {STEPS}; resume with: python -m qoq_lib" in said
    train(job, rows, run)
    assert f"Resuming from checkpoint-{stops}." in capsys.readouterr().out
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert read_log(run)["step"].tolist() == list(range(1, STEPS + 1))
    if name != "sft":
        kept, all_along = (read_rollouts(folder / "rollouts") for folder in (run, whole))
        assert kept.drop(columns="run_id").equals(all_along.drop(columns="run_id"))


def test_sigterm_in_the_last_step_costs_nothing_of_the_training(
    aligned: Path, rows: Dataset, run: Path, at_step: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(aligned, minutes=EVERY_STEP)
    at_step(STEPS, sigterm)
    with pytest.raises(SystemExit):
        train(job, rows, run)
    assert f"Stopped by SIGTERM at step {STEPS} of {STEPS}" in capsys.readouterr().out
    weights = (run / WEIGHTS).stat().st_mtime_ns
    _, _, log = start_job(job, rows, run, reuse=True)
    assert "This training was ended before" in capsys.readouterr().out
    assert log["step"].tolist() == list(range(1, STEPS + 1))
    assert (run / WEIGHTS).stat().st_mtime_ns == weights


def test_several_processes_stop_at_one_step_whichever_hears_of_it_and_go_on(
    aligned: Path,
    rows: Dataset,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assemble("phantom", run / "data", rows=240, seed=0)
    job = job_of(aligned, steps=12, micro_batch=2).model_copy(update={"processes": 2})

    def tell_one_of(starter: int) -> None:
        psutil.Process(starter).children()[1].terminate()

    def stop_the_watching_process() -> None:
        while not over.wait(0.05):
            if (run / "rollouts" / "step-00000002.parquet").exists():
                return sigterm()

    monkeypatch.setattr(distributed, "hand_down", tell_one_of)
    over = threading.Event()
    threading.Thread(target=stop_the_watching_process).start()
    try:
        with pytest.raises(SystemExit) as ended:
            start_job(job, rows, run)
    finally:
        over.set()
    assert ended.value.code == 0
    steps = len(read_log(run))
    assert 2 <= steps < 12
    assert checkpoints(run) == [f"checkpoint-{steps}"]
    states = run / "checkpoints" / "training" / f"checkpoint-{steps}"
    assert len(list(states.glob("rng_state_*.pth"))) == 2
    assert f"Stopped by SIGTERM at step {steps} of 12" in capsys.readouterr().out
    _, _, log = start_job(job, rows, run)
    said = capsys.readouterr().out
    assert f"Resuming from checkpoint-{steps}." in said
    assert said.count("12/12 (100%)") == 1  # one process tells of the progress
    assert log["step"].tolist() == list(range(1, 13))


def test_too_little_memory_is_one_sentence_and_smaller_passes_go_on(
    aligned: Path, rows: Dataset, run: Path, at_step: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(5, no_memory)
    with pytest.raises(TrainingError) as told:
        train(job_of(aligned, minutes=EVERY_STEP), rows, run)
    sentence = str(told.value)
    assert "This machine has too little memory" in sentence
    knobs = ["training.micro_batch (now 4)", "pixels", "max_completion_length (now 4)", "qlora"]
    assert sorted(knobs, key=sentence.index) == knobs
    assert sentence.endswith("the same run_id goes on from checkpoint-4, else anew.")
    assert checkpoints(run) == ["checkpoint-3", "checkpoint-4"]
    train(job_of(aligned, minutes=EVERY_STEP, micro_batch=2), rows, run)
    said = capsys.readouterr().out
    assert "Resuming from checkpoint-4." in said
    last = next(line for line in said.splitlines() if f"{STEPS}/{STEPS} (100%)" in line)
    assert "reward " in last and "rollouts/s" in last
    assert read_log(run)["step"].tolist() == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("shapes do not match"), False),
    ],
)
def test_only_memory_is_told_as_memory(
    aligned: Path, run: Path, error: Exception, is_memory: bool
) -> None:
    assert is_out_of_memory(error) == is_memory
    with (
        pytest.raises(TrainingError if is_memory else type(error)),
        limits_told(job_of(aligned), run),
    ):
        raise error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own that holds one checkpoint of the tiny model and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets us mount no small disk: {error}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_one_sentence_and_with_more_room_the_run_goes_on(
    aligned: Path, rows: Dataset, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, run = job_of(aligned, minutes=EVERY_STEP), small_disk / "run"
    run.mkdir()
    with pytest.raises(TrainingError) as told:
        train(job, rows, run)
    sentence = str(told.value)
    assert sentence.startswith(f"The disk of {run} is full (")
    assert "a checkpoint takes " in sentence and "QOQ_RUNS" in sentence
    assert sentence.endswith("goes on from checkpoint-1.")
    assert checkpoints(run) == ["checkpoint-1"]
    room = ["mount", "-o", "remount,size=200m", str(small_disk)]
    subprocess.run(room, check=True)
    train(job, rows, run)
    assert "Resuming from checkpoint-1." in capsys.readouterr().out
    assert read_log(run)["step"].tolist() == list(range(1, STEPS + 1))


def test_every_writer_s_full_disk_is_told_alike_and_leaves_nothing_half(
    aligned: Path, small_disk: Path
) -> None:
    room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "other").write_bytes(bytes(room - (1 << 16)))
    row = {"id": "a/1", "dataset": "a", "options": ["x"], "answers": ["x"]}
    noise = os.urandom(1 << 18).hex()
    writers: list[Callable[[], object]] = [
        lambda: RolloutWriter(small_disk / "rollouts").write(1, [row | {"completion": noise}]),
        lambda: torch.save({"moments": torch.rand(1 << 18)}, small_disk / "optimizer.pt"),
        lambda: save_checkpoint(*tiny_model(0), small_disk / "checkpoints" / "trained"),
        lambda: write_bytes_atomic(small_disk / "log.parquet", bytes(1 << 18)),
    ]
    for write in writers:
        with (
            pytest.raises(TrainingError, match=r"is full \(.* MB free"),
            limits_told(job_of(aligned), small_disk),
        ):
            write()
        (small_disk / "optimizer.pt").unlink(missing_ok=True)
    assert not list(small_disk.glob("rollouts/*")) and not list(small_disk.glob("checkpoints/*"))
