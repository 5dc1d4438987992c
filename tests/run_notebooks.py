"""A small notebook of the project's shape, in pieces, and how papermill is told to run it."""

import subprocess
import sys
from pathlib import Path

PARAMETERS = """\
run_id: str = ""
model_size: str = "tiny"  # tiny | 3b
seed: int = 0  # >= 0
fail: bool = False
wait: bool = False
"""
SETUP = """\
from qoq_lib.runs import start_run
run = start_run("03_test", globals())
p = run.parameters
"""
BODY = """\
import time
from qoq_lib.runs import write_text_atomic
run.record(dataset={"fingerprint": "abc", "rows": {"train": 3}}, base_model="tiny")
file = write_text_atomic(run.folder("predictions") / "a.txt", "a")
print("working", flush=True)
if p.fail:
    raise ValueError("broken on purpose")
while p.wait:
    time.sleep(0.1)
"""
SAVING = """\
from qoq_lib.runs.signals import on_sigterm
heard = []
with on_sigterm(lambda: heard.append("SIGTERM")):
    file = write_text_atomic(run.folder("predictions") / "a.txt", "a")
    while not heard:
        time.sleep(0.1)
write_text_atomic(run.folder("predictions") / "saved.txt", "saved")
raise SystemExit(0)
"""
FINISH = 'run.finish({"reward": 0.61, "loss": float("nan")}, artefacts=[file])'


def command(source: Path, module: str = "papermill", **parameters: str) -> list[str]:
    flags = [part for name, value in parameters.items() for part in ("-p", name, value)]
    output = source.with_name("out.ipynb")
    run = [sys.executable, "-m", module, str(source), str(output), "--no-progress-bar"]
    return [*run, "--log-output", "--autosave-cell-every", "1", *flags]


def papermill(source: Path, **parameters: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(source, **parameters), cwd=source.parent, capture_output=True, text=True, timeout=60
    )
