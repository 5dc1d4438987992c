"""A run folder as the notebooks leave it, made in seconds: real files, fictional answers."""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from qoq_lib.data.assemble import assemble, load_assembled
from qoq_lib.data.storage import load_assembly
from qoq_lib.evaluation.metrics import evaluate
from qoq_lib.runs import RESULT_MIME, Environment, write_json_atomic
from qoq_lib.runs.manifest import Manifest, hash_artefacts
from qoq_lib.training.rollouts import RolloutWriter

STAGES = ("01_assemble_data", "02_align_modalities", "03_drpo_train", "05_domain_analysis")
PARAMETERS = {"run_id": "done", "model_size": "tiny", "seed": 7}
OWN = {"03_drpo_train": {"method": "drpo", "start_from": "", "steps": 2}}


def finished_run(folder: Path, base_model: str = "tiny") -> Path:
    """A run of the phantom; its checkpoints are the caller's to write (``record`` afterwards)."""
    assemble("phantom", folder / "data", rows=180, seed=0)
    data = load_assembled(folder / "data")
    writer = RolloutWriter(folder / "rollouts", {"run_id": folder.name, "model": base_model})
    writer.write(1, [answered(row, sample % 2) for row in data["train"] for sample in range(2)])
    (folder / "predictions").mkdir()
    for name, share in {"aligned": 0.25, "trained": 0.5}.items():
        predicted(data["test"], share).to_parquet(folder / "predictions" / f"{name}.parquet")
    return folder


def record(folder: Path, base_model: str = "tiny", **parameters: Any) -> None:
    """Score the predictions and enter all stages in ``run.json``, as completed."""
    scores = {name: evaluate(frame) for name, frame in read(folder / "predictions").items()}
    write_json_atomic(folder / "metrics.json", scores)
    manifest, environment = Manifest(folder / "run.json", folder.name), Environment.collect()
    dataset = {"fingerprint": load_assembly(folder / "data").fingerprint}
    for stage in STAGES:
        given = {**PARAMETERS, "run_id": folder.name, **OWN.get(stage, {}), **parameters}
        manifest.claim(stage, {"parameters": given})
        seeds = {"seed": given["seed"], "python": 11, "numpy": 12, "torch": 13}
        facts = {"dataset": dataset, "base_model": base_model, "seeds": seeds}
        manifest.update(stage, {**asdict(environment), **facts})
        made = ["checkpoints/trained"] if stage == "03_drpo_train" else []
        manifest.end(stage, "completed", {"artefacts": hash_artefacts(made, folder)})
        notebook(folder / f"{stage}.ipynb", stage, given)


def read(folder: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}


def answered(row: Mapping[str, Any], right: bool) -> dict[str, Any]:
    said = row["answers"][0] if right else "nothing known"
    told = {name: row[name] for name in ("id", "domain", "dataset", "question", "options")}
    told |= {"answers": row["answers"], "sample": int(right), "correct": bool(right)}
    return told | {"completion": f"<think>So.</think>\\boxed{{{said}}}", "reward": float(right)}


def predicted(rows: Any, share: float) -> pd.DataFrame:
    kept = ("id", "domain", "dataset", "patient_id", "options", "answers", "sex", "age_years")
    lines = [{name: row[name] for name in kept} for row in rows]
    for number, line in enumerate(lines):
        said = line["answers"][0] if number % 4 < 4 * share else "nothing known"
        line["completion"] = f"\\boxed{{{said}}}"
    return pd.DataFrame(lines)


def notebook(path: Path, stage: str, parameters: Mapping[str, Any]) -> None:
    """An executed notebook with a picture, a path of the machine and the result object."""
    given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    result = {"run_id": parameters["run_id"], "stage": stage, "metrics": {"macro_f1": 0.5}}
    picture = b64encode(Image.linear_gradient("L").resize((2, 2))._repr_png_()).decode()
    shown = {"text/plain": "read from /home/someone/data", "image/png": picture}
    cells = [
        new_code_cell(given + "\ndata_root = '/home/someone/data'"),
        new_code_cell("look()", outputs=[new_output("display_data", shown)]),
        new_code_cell("run.finish()", outputs=[new_output("display_data", {RESULT_MIME: result})]),
    ]
    for number, cell in enumerate(cells, start=1):
        cell.execution_count = number
    cells[0].metadata["tags"] = ["injected-parameters"]
    facts = {"papermill": {"output_path": f"/home/someone/runs/{stage}.ipynb"}}
    nbformat.write(new_notebook(cells=cells, metadata=facts), path)


def change(path: Path, edit: Any) -> None:
    """Edit a JSON file in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    write_json_atomic(path, value)
