"""Kill a training run at random moments, resume it, and compare it with one that was left alone.

Each run is a process of its own at tiny size on the CPU, ended by SIGKILL, which nothing can catch.
The runs agree when every rollout has the same reward and the final weights are the same, bit for
bit. Exit code 1 where one differs.

    python benchmarks/kill_and_resume.py --kills 10
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    method = load_method("drpo")
    train_job(TrainingJob(start=start, size=size, method=method, save_minutes=0.005), rows, run)


def compare(scratch: Path, options: argparse.Namespace) -> int:
    """Train once undisturbed, then once per kill; the number of kills that changed something."""
    launch(scratch / "whole", options.steps)
    written = sorted(path.stat().st_mtime for path in scratch.glob("whole/rollouts/*.parquet"))
    pace = (written[-1] - written[0]) / (options.steps - 1)
    rng, different = random.Random(options.seed), 0
    for number in range(options.kills):
        run = scratch / f"killed-{number}"
        step, later = kill(run, options.steps, pace, rng)
        found = sorted(path.name for path in run.glob("checkpoints/training/checkpoint-*"))
        launch(run, options.steps)
        same = outcome(run) == outcome(scratch / "whole")
        different += not same
        print(
            f"killed {later:.2f} s after the rollouts of step {step}, left {found}: "
            f"{'same' if same else 'DIFFERENT'}",
            flush=True,
        )
    print(f"{options.kills - different} of {options.kills} runs identical after a kill")
    return int(different > 0)


def kill(run: Path, steps: int, pace: float, rng: random.Random) -> tuple[int, float]:
    """Kill a training up to ``pace`` s after a step's rollouts; the step, 0: none, and the seconds.

    A training that was over before the kill is begun anew and killed earlier.
    """
    for most in range(steps, 0, -1):
        step, later = rng.randrange(most), rng.uniform(0, pace)
        shutil.rmtree(run, ignore_errors=True)
        with started(run, steps) as child:
            done = run / "rollouts" / f"step-{step:08d}.parquet" if step else run / "rollouts"
            while not done.exists() and child.poll() is None:
                time.sleep(0.01)
            time.sleep(later)
            child.kill()
        if child.returncode == -signal.SIGKILL:
            return step, later
    raise RuntimeError("No training ran long enough to be killed: ask for more steps.")


def launch(run: Path, steps: int) -> None:
    """Train in a process of its own to the end."""
    with started(run, steps) as child:
        _, errors = child.communicate()
    if child.returncode:
        raise RuntimeError(f"A training stopped by itself: {errors[-2000:]}")


def started(run: Path, steps: int) -> subprocess.Popen[str]:
    """The process of a training into the folder ``run``."""
    run.mkdir(parents=True, exist_ok=True)
    call = [sys.executable, __file__, "--steps", str(steps), "--train", str(run)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(call, stdout=quiet, stderr=subprocess.PIPE, text=True)


def outcome(run: Path) -> tuple[bytes, str]:
    """Final weights, and what every rollout said and earned."""
    from qoq_lib.training.rollouts import read_rollouts

    rollouts = read_rollouts(run / "rollouts")
    told = rollouts[["step", "id", "sample", "completion", "reward", "advantage"]]
    return (run / WEIGHTS).read_bytes(), told.to_csv()


if __name__ == "__main__":
    sys.exit(main())
