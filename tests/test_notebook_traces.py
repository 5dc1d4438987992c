"""Notebook 07 on traces that it downloads from a Hub."""

import json
import subprocess
from pathlib import Path
from typing import Any

from hub_releases import hub_environment
from hub_server import HubServer
from test_notebooks_run import command, printed
from trace_runs import GROUP, STEPS, write_run

from qoq_lib.publishing.hub import publish
from qoq_lib.publishing.plan import plan_release
from qoq_lib.publishing.traces import write_traces
from qoq_lib.runs import read_result


def test_the_notebook_reads_published_traces_with_their_images(
    tmp_path: Path, tiny: tuple[Any, Any], hub: HubServer
) -> None:
    run = write_run(tmp_path / "made" / "small", tiny)
    write_traces(run, tmp_path / "out")
    asked = {"repo_id": "writer/traces", "revision": "v1", "outcome": "wrong", "domain": "ct"}
    options = [word for name, value in asked.items() for word in ("-p", name, value)]
    publish(plan_release(tmp_path / "out", "writer/traces", "dataset"), "hf_write", "v1")
    done = subprocess.run(
        command("07_explore_traces", tmp_path / "o.ipynb", *options),
        cwd=tmp_path,
        env=hub_environment(hub, tmp_path / "cache") | {"QOQ_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = read_result(tmp_path / "o.ipynb")["metrics"]
    assert metrics["traces"] == STEPS * GROUP and metrics["chosen"] == STEPS * GROUP // 2
    figures = {path.stem for path in (tmp_path / "runs" / "tiny" / "figures").glob("*.png")}
    kinds = ("answers", "lengths", "agreement", "traces", "trace")
    assert figures == {f"07_{name}" for name in kinds}
    assert "Nobody is watching" in printed(tmp_path / "o.ipynb")
    outputs = [
        cell.get("outputs") for cell in json.loads((tmp_path / "o.ipynb").read_text())["cells"]
    ]
    assert str(tmp_path) not in json.dumps(outputs)
