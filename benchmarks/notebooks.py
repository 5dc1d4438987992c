"""Seconds that notebooks 04 and 05 take on a run, kernel and imports included.

They are executed by papermill as a reader would, on a copy of the run without its checkpoints.

    python benchmarks/notebooks.py runs/demo
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qoq_lib.runs import project_root

STEMS = ("04_reward_curves", "05_domain_analysis")


def main() -> None:
    """Execute and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run that notebook 03 has trained")
    run = parser.parse_args().run.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(run, Path(scratch, run.name), ignore=shutil.ignore_patterns("checkpoints"))
        for stem in STEMS:
            print(f"{stem}: {seconds(stem, run.name, Path(scratch)):.1f} s", flush=True)


def seconds(stem: str, run_id: str, runs: Path) -> float:
    """Wall time of one notebook, as a process of its own."""
    notebook, out = project_root() / "notebooks" / f"{stem}.ipynb", runs / f"{stem}.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), str(out), "-k", "python3"]
    command += ["--no-progress-bar", "--log-level", "ERROR", "-p", "run_id", run_id]
    started = time.perf_counter()
    subprocess.run(command, env=os.environ | {"QOQ_RUNS": str(runs)}, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
