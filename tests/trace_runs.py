"""A small finished run with traces of all kinds, for the tests of traces; made in seconds."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from qoq_lib.data.assemble import assemble, load_assembled
from qoq_lib.runs import write_json_atomic
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.rollouts import RolloutWriter

STEPS, GROUP = 3, 4
BOX = '```json\n[{"bbox_2d": [4, 4, 20, 24], "label": "here"}]\n```'
_ASKED = ("id", "domain", "dataset", "question", "options", "answers")


def write_run(run: Path, tiny: tuple[Any, Any], **changed: Any) -> Path:
    """A run folder of the phantom: a question per domain at each step, in groups of four.

    Of a group the first answer is right, the second right but cut off, the third wrong and the last
    has no box. ``changed`` are fields that every rollout has instead.
    """
    assemble("phantom", run / "data", rows=180)
    data = load_assembled(run / "data")
    save_checkpoint(*tiny, run / "checkpoints" / "trained")
    rows = data["train"].remove_columns(["mask", "ecg"])
    by_domain = {name: n for n, name in enumerate(rows["domain"])}
    writer = RolloutWriter(
        run / "rollouts", {"model": "tiny", "run_id": run.name, "seed": 7, "model_revision": None}
    )
    for step in range(1, STEPS + 1):
        asked = [rows[number] for number in by_domain.values()]
        told = [rollout(row, sample) | changed for row in asked for sample in range(GROUP)]
        writer.write(step, told)
    (run / "predictions").mkdir()
    for name in ("aligned", "trained", "somebody_else"):
        predictions(data["test"], name).to_parquet(run / "predictions" / f"{name}.parquet")
    write_json_atomic(run / "run.json", manifest(run.name))
    return run


def rollout(row: dict[str, Any], sample: int) -> dict[str, Any]:
    """One of the four answers to a question."""
    wrong = next(name for name in row["options"] if name not in row["answers"])
    right = sample < 2
    said = f"<think>Look. {BOX}</think>" + f"\\boxed{{{row['answers'][0] if right else wrong}}}"
    return {name: row[name] for name in _ASKED} | {
        "image_ref": ["0" * 64] if row["images"] else [],
        "ecg_ref": None if row["images"] else "1" * 64,
        "sample": sample,
        "completion": "I cannot say." if sample == 3 else said,
        "reward_accuracy": float(right),
        "reward_format": 1.0,
        "reward": float(right),
        "advantage": 1.0 if right else -1.0,
        "weight": 0.5,
        "cluster": 2,
        "domain_temperature": 1.5,
        "cluster_temperature": 1.0,
        "correct": right,
        "finish_reason": "length" if sample == 1 else "stop",
        "n_tokens": 10 + sample,
    }


def predictions(rows: Any, model: str) -> pd.DataFrame:
    """One answer to each question, right where the model is the trained one."""
    table = []
    for row in rows.remove_columns(["images", "mask", "ecg"]):
        label = row["answers"][0] if model == "trained" else row["options"][0]
        told = {name: row[name] for name in _ASKED if name != "question"}
        table.append(told | {"patient_id": row["patient_id"], "completion": f"\\boxed{{{label}}}"})
    return pd.DataFrame(table)


def manifest(run_id: str) -> dict[str, Any]:
    """The part of ``run.json`` that traces are read with."""
    parameters = {"model_size": "tiny", "seed": 7, "run_id": run_id}
    stage = {"status": "completed", "parameters": parameters}
    return {"schema_version": 1, "run_id": run_id, "stages": {"03_drpo_train": stage}}


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to, ignore=shutil.ignore_patterns(".cache")))


def change(run: Path, **columns: Any) -> None:
    """Set columns of all rollouts."""
    for path in (run / "rollouts").glob("*.parquet"):
        pd.read_parquet(path).assign(**columns).to_parquet(path)
