"""Notebook 05 on runs that are not whole: a useful page, and a sentence for each thing missing."""

import json
from pathlib import Path

import pandas as pd
from fictions import predictions
from test_notebooks_run import execute, printed

from qoq_lib.runs import read_result
from qoq_lib.runs.manifest import Manifest

STEM = "05_domain_analysis"


def analysed(runs: Path, run_id: str) -> Path:
    out = runs / f"{run_id}.ipynb"
    done = execute(STEM, out, runs, runs, "-p", "run_id", run_id)
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_result(out)["stage"] == STEM
    return out


def test_a_training_in_progress_with_predictions_of_an_older_schema(tmp_path: Path) -> None:
    run = tmp_path / "early"
    (run / "predictions").mkdir(parents=True)
    predictions(("ct", "ecg"), right=0.5).to_parquet(run / "predictions" / "aligned.parquet")
    Manifest(run / "run.json", "early").claim("03_drpo_train", {"parameters": {}})
    said = printed(analysed(tmp_path, "early"))
    assert "Models: aligned; 18 test questions" in said
    assert "How the answers of aligned were decoded is not known." in said
    assert "03_drpo_train of this run is recorded as running." in said
    assert "do not hold boxes (no IoU)" in said and "hold no option_logprobs" in said
    assert "tell neither sex nor age" in said and "images cannot be shown" in said
    assert sorted(path.name for path in (run / "figures").glob("*.png")) == [
        *("05_confusion.png", "05_macro_f1.png"),
    ]


def test_questions_with_one_option_only_as_a_run_of_echonet_has(tmp_path: Path) -> None:
    run, count = tmp_path / "where", 24
    (run / "predictions").mkdir(parents=True)
    names = [f"echonet/{number}" for number in range(count)]
    facts = {"id": names, "patient_id": names, "domain": "ultrasound", "dataset": "echonet"}
    table = pd.DataFrame(facts | {"sex": ["F", "M"] * 12, "age_years": 50.0})
    table["options"] = table["answers"] = [["left ventricle"]] * count
    table["boxes"], table["image_size"] = [[[0.0, 0.0, 8.0, 8.0]]] * count, [[56, 56]] * count
    for name, corner in {"aligned": 4, "trained": 8}.items():
        box = json.dumps([{"bbox_2d": [0, 0, 8, corner], "label": "left ventricle"}])
        said = f"```json\n{box}\n```\\boxed{{left ventricle}}"
        table.assign(completion=said).to_parquet(run / "predictions" / f"{name}.parquet")
    out = analysed(tmp_path, "where")
    said = printed(out)
    assert "No question has options to choose from, so there is no macro-F1." in said
    assert "there is no macro-F1 to draw" in said and "The questions tell no macro-F1" in said
    assert {path.stem for path in (run / "figures").glob("*.svg")} == {
        *("05_confusion", "05_overlap")
    }
    assert "no Overall, as the paper averages none" in out.read_text()
    metrics = read_result(out)["metrics"]
    assert metrics["box_iou_aligned"] == 0.5 and metrics["box_iou_trained"] == 1.0
    assert metrics["exact_match_trained"] == 1.0 and not any("macro_f1" in key for key in metrics)


def test_one_domain_with_all_that_predictions_can_hold(tmp_path: Path) -> None:
    run = tmp_path / "one"
    (run / "predictions").mkdir(parents=True)
    table = pd.concat([predictions(("ct",), right=0.5)] * 4, ignore_index=True)
    names = [str(number) for number in range(len(table))]
    table = table.assign(id=names, patient_id=names, sex=["F", "M"] * 16, age_years=50.0)
    table["option_logprobs"] = [[-0.1, -2.0, -3.0, -3.0], [-2.0, -0.1, -3.0, -3.0]] * 16
    table["boxes"], table["image_size"] = [[[0.0, 0.0, 9.0, 9.0]]] * 32, [[56, 56]] * 32
    drawn = '```json\n[{"bbox_2d": [0, 0, 9, 5], "label": "x"}]\n```' + table["completion"]
    table.to_parquet(run / "predictions" / "aligned.parquet")
    table.assign(completion=drawn).to_parquet(run / "predictions" / "trained.parquet")
    said = printed(analysed(tmp_path, "one"))
    assert "One domain has questions: the overall score is that domain's." in said
    kinds = ("calibration", "confusion", "macro_f1", "overlap", "subgroups")
    assert {path.stem for path in (run / "figures").glob("*.svg")} == {f"05_{k}" for k in kinds}
    scores = json.loads((run / "metrics.json").read_text())["trained"]
    assert scores["overall"]["box_iou"] > 0.5 and scores["overall"]["intervals"]["auroc"]
