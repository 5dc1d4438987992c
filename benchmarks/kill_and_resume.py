"""Kill a training run at random moments, resume it, and compare it with one that was left alone.

Each run is a process of its own at tiny size on the CPU, ended by SIGKILL, which nothing can catch.
The runs agree when every rollout has the same reward and the final weights are the same, bit for
bit. Exit code 1 where one differs.

    python benchmarks/kill_and_resume.py --kills 10
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READY = "train (steps)"  # begins the first line of progress
WEIGHTS = Path("checkpoints", "trained", "model.safetensors")


def main() -> int:
    """Run the comparison, or, with ``--train``, one training in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="decides the moments of the kills")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.steps)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return compare(Path(scratch), options)


def train(run: Path, steps: int) -> None:
    """One run into the folder ``run``, resumed from its last checkpoint where it has one."""
    from qoq_lib.data.phantom import make_phantom
    from qoq_lib.model.loading import load_size, tiny_model
    from qoq_lib.training.checkpoints import save_checkpoint
    from qoq_lib.training.job import TrainingJob
    from qoq_lib.training.launch import train as train_job
    from qoq_lib.training.methods import load_method

    size = load_size("tiny")
    plan = {"steps": steps, "questions_per_step": 8, "rollouts": 4, "micro_batch": 16}
    size.training = size.training.model_copy(update=plan)
    start = run / "checkpoints" / "aligned"
    if not start.exists():
        save_checkpoint(*tiny_model(0), start)
    rows = make_phantom(200, seed=0).filter(lambda s: s == "train", input_columns="split")
    train_job(TrainingJob(start=start, size=size, method=load_method("drpo")), rows, run)


def compare(scratch: Path, options: argparse.Namespace) -> int:
    """Train once undisturbed, then once per kill; the number of kills that changed something."""
    seconds = launch(scratch / "whole", options.steps, None)
    print(f"left alone: {seconds:.1f} s of training")
    rng, different = random.Random(options.seed), 0
    for number in range(options.kills):
        run, moment = scratch / f"killed-{number}", rng.uniform(0, seconds)
        launch(run, options.steps, moment)
        found = sorted(path.name for path in run.glob("checkpoints/training/checkpoint-*"))
        launch(run, options.steps, None)
        same = outcome(run) == outcome(scratch / "whole")
        different += not same
        print(f"killed after {moment:.1f} s, left {found}: {'same' if same else 'DIFFERENT'}")
    print(f"{options.kills - different} of {options.kills} runs identical after a kill")
    return int(different > 0)


def launch(run: Path, steps: int, moment: float | None) -> float:
    """Train in a process, killed ``moment`` seconds after its first step; seconds of training."""
    run.mkdir(parents=True, exist_ok=True)
    call = [sys.executable, __file__, "--steps", str(steps), "--train", str(run)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stderr
        begin = time.monotonic()
        for line in child.stdout:
            if line.startswith(READY):
                begin = time.monotonic()
                break
        try:
            _, errors = child.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            return time.monotonic() - begin
        if child.returncode:
            raise RuntimeError(f"A training stopped by itself: {errors[-2000:]}")
    return time.monotonic() - begin


def outcome(run: Path) -> tuple[bytes, str]:
    """Final weights, and what every rollout said and earned."""
    from qoq_lib.training.rollouts import read_rollouts

    rollouts = read_rollouts(run / "rollouts")
    told = rollouts[["step", "id", "sample", "completion", "reward", "advantage"]]
    return (run / WEIGHTS).read_bytes(), told.to_csv()


if __name__ == "__main__":
    sys.exit(main())
