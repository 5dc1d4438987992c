"""From the answers of a study's runs to ``results.csv``: a row per run, domain and metric."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qoq_lib.data.assemble import load_assembled, load_assembly
from qoq_lib.domains import domain_order
from qoq_lib.evaluation.study.config import Study, StudyError
from qoq_lib.evaluation.study.constant_box import constant_box_iou
from qoq_lib.evaluation.study.planning import DECODINGS, ArmRun, Start
from qoq_lib.evaluation.study.running import BOX_METRICS, CURVE_FILE, METRICS

RARE, COMMON, GAP, OVERALL = "rare", "common", "rare minus common", "overall"
FLOORS_BESIDE = {"macro_f1": "floor_all_options", "box_iou": "floor_constant_box"}
"""The floor that arms are compared with, by measure."""

COUNTS = {"n", "lesions"}  # of questions, beside the measures in a run's kept scores


def domain_rows(starts: Sequence[Start]) -> pd.Series:
    """Training rows by domain, mean over seeds, fewest first."""
    counts = [load_assembly(start.data).rows for start in starts]
    table = pd.DataFrame([{name: n.get("train", 0) for name, n in c.items()} for c in counts])
    return table.fillna(0).mean().sort_values(kind="stable")


def rare_domains(rows: pd.Series) -> list[str]:
    """The third of the domains with fewest training rows, one at least; see ``domain_rows``."""
    ordered = rows.sort_values(kind="stable").index
    return domain_order(list(ordered[: max(1, round(len(ordered) / 3))]))


def results_table(study: Study, runs: Sequence[ArmRun]) -> pd.DataFrame:
    """``arm, seed, decoding, domain, metric, value, n`` of every finished run.

    ``domain`` is a clinical domain, ``overall`` (their unweighted mean), ``rare`` (mean of the
    third of the domains with fewest training rows), ``common`` (of the others) or their
    difference. ``metric`` is one of ``METRICS`` or ``floor_constant`` and ``floor_all_options``,
    the macro-F1 of answers that look at nothing; in a study whose answers draw boxes also one of
    ``BOX_METRICS`` or ``floor_constant_box`` (``constant_box``), means over the domains with
    lesions. ``n`` counts questions, for boxes those with lesions.

    Raises:
        StudyError: no run is finished.
    """
    done = [run for run in runs if run.finished(study.split)]
    if not done:
        raise StudyError("No run of this study is finished: run it first.")
    rare = rare_domains(domain_rows([run.start for run in done]))
    floors = _box_floors(study, done)
    records = []
    for run in done:
        for decoding in DECODINGS:
            scores = json.loads(run.scores(study.split, decoding).read_text(encoding="utf-8"))
            add_box_floor(scores, floors.get(run.start.seed, {}))
            facts = {"arm": run.arm.name, "seed": run.start.seed, "decoding": decoding}
            records += [facts | record for record in score_records(scores, rare)]
    return pd.DataFrame(records)


def _box_floors(study: Study, runs: Sequence[ArmRun]) -> dict[int, dict[str, float]]:
    """By seed, IoU by domain of one box for all patients; empty where no boxes are drawn."""
    if study.size().answer_style == "brief":
        return {}
    data = {run.start.seed: run.start.data for run in runs}
    loaded = {seed: load_assembled(folder) for seed, folder in data.items()}
    return {
        seed: constant_box_iou(rows["train"], rows[study.split]) for seed, rows in loaded.items()
    }


def add_box_floor(scores: dict[str, Any], floor: Mapping[str, float]) -> None:
    """Put ``floor_constant_box`` into a run's kept scores, beside the IoU of each domain."""
    told = {domain: value for domain, value in floor.items() if domain in scores["domains"]}
    for domain, value in told.items():
        scores["domains"][domain]["floor_constant_box"] = value
    if told:
        scores["overall"]["floor_constant_box"] = float(np.mean(list(told.values())))


def score_records(scores: Mapping[str, Any], rare: Sequence[str]) -> list[dict[str, Any]]:
    """Rows ``domain, metric, value, n`` of one run's kept scores; see ``results_table``."""
    parts = {OVERALL: scores["overall"]} | scores["domains"]
    groups = {RARE: [name for name in scores["domains"] if name in rare]}
    groups[COMMON] = [name for name in scores["domains"] if name not in rare]
    for group, names in groups.items():
        if names:
            parts[group] = _mean([parts[name] for name in names])
    if RARE in parts and COMMON in parts:
        both = [n for n in (*METRICS, *BOX_METRICS) if n in parts[RARE] and n in parts[COMMON]]
        gap = {name: parts[RARE][name] - parts[COMMON][name] for name in both}
        parts[GAP] = gap | {name: parts[OVERALL][name] for name in COUNTS & set(parts[OVERALL])}
    return [
        {"domain": domain, "metric": name, "value": value, "n": _questions(part, name)}
        for domain, part in parts.items()
        for name, value in part.items()
        if name not in COUNTS
    ]


def _mean(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the parts that have a measure; counts are summed."""
    values = {
        name: [part[name] for part in parts if name in part] for part in parts for name in part
    }
    return {
        name: sum(found) if name in COUNTS else float(np.mean(found))
        for name, found in values.items()
    }


def _questions(part: Mapping[str, float], metric: str) -> int:
    return int(part["lesions" if metric in (*BOX_METRICS, "floor_constant_box") else "n"])


def cost_table(study: Study, runs: Sequence[ArmRun]) -> pd.DataFrame:
    """``arm, seed, completions, seconds, device, code`` of every finished run.

    ``completions`` are all that training sampled, ReMax's greedy ones included. ``seconds`` is NaN
    for a training that was interrupted and resumed: what came before the kill is not known.
    """
    records = []
    for run in runs:
        if run.finished(study.split):
            cost = json.loads(run.cost.read_text(encoding="utf-8"))
            cost["seconds"] = np.nan if cost.pop("resumed") else cost["seconds"]
            records.append({"arm": run.arm.name, "seed": run.start.seed} | cost)
    return pd.DataFrame(records)


def curves_table(runs: Sequence[ArmRun]) -> pd.DataFrame:
    """``arm, seed, step, domain, rollouts, reward, correct`` of every training with rollouts."""
    parts = []
    for run in runs:
        if run.cost.is_file() and (run.folder / CURVE_FILE).is_file():
            curve = pd.read_parquet(run.folder / CURVE_FILE)
            parts.append(curve.assign(arm=run.arm.name, seed=run.start.seed))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["arm", "seed"])
