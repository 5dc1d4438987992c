"""A training in several processes of this machine, started from one that only watches.

``accelerate launch`` starts them on GPUs, with ``configs/accelerate/<parallel>.yaml``. On a CPU it
would start a single one, so there ``torchrun`` does, and the processes talk over gloo.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qoq_lib.runs import project_root
from qoq_lib.runs.files import make_folder
from qoq_lib.runs.signals import hand_down, on_sigterm
from qoq_lib.training.job import CONFIG_FILE, TrainingError, TrainingJob

MODULE = "qoq_lib.training.launch"
LOG_NAME = "processes.txt"


def run_processes(job: TrainingJob, run_folder: Path) -> bool:
    """Train the job that ``config.yaml`` of the run folder holds, on the data in its ``data``.

    What the processes print appears here as it comes; what they write to the error stream goes to
    ``logs/processes.txt`` of the run folder. SIGTERM is handed to them, not to their starter, which
    would give them half a minute. Returns ``False`` where it came: they may have stopped early.

    Raises:
        TrainingError: a process failed.
    """
    log = make_folder(run_folder / "logs") / LOG_NAME
    told: list[int] = []

    def tell() -> None:
        told.append(process.pid)
        hand_down(process.pid)

    place = {"PYTHONPATH": os.pathsep.join([str(project_root()), os.environ.get("PYTHONPATH", "")])}
    with (
        log.open("w", encoding="utf-8") as errors,
        _started(
            command(job, run_folder / CONFIG_FILE),
            cwd=project_root(),
            env=os.environ | place | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
        on_sigterm(tell),
    ):
        for line in process.stdout or ():
            print(line, end="", flush=True)
    if process.returncode and not told:
        raise TrainingError(
            f"The training stopped in one of its {job.processes} processes ({_reason(log)}): see "
            f"{log}; the same run_id goes on from the last checkpoint."
        )
    return not told


def command(job: TrainingJob, config: Path) -> list[str]:
    """What is started for a job of several processes."""
    count = str(job.processes)
    if not job.size.needs_gpu:
        starter = ["torch.distributed.run", "--standalone", "--nproc_per_node", count]
    else:
        plan = project_root() / "configs" / "accelerate" / f"{job.parallel}.yaml"
        starter = ["accelerate.commands.launch", "--config_file", str(plan)]
        starter += ["--num_processes", count]
    return [sys.executable, "-m", *starter, "-m", MODULE, "--config", str(config)]


@contextmanager
def _started(arguments: list[str], **options: object) -> Iterator[subprocess.Popen]:
    """A process that does not outlive an interrupted cell: it gets time to end its children."""
    process = subprocess.Popen(arguments, **options)  # type: ignore[call-overload]
    try:
        yield process
        process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _reason(log: Path) -> str:
    """The last error that a process wrote."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines()]
    named = [line.split("]: ", 1)[-1] for line in lines if "Error: " in line]
    return named[0] if named else "no error message"
