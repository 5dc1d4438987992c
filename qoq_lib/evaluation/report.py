"""From a run's predictions to what notebook 05 shows: score tables and the cases to look at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from qoq_lib.domains import DOMAINS
from qoq_lib.evaluation.metrics import FLOORS, answered
from qoq_lib.runs import RunError

MODELS = ("untrained", "aligned", "trained")
"""The models of a run, in the order in which they come to be."""

Predictions = Mapping[str, pd.DataFrame]
Scores = Mapping[str, Mapping[str, Any]]


def read_predictions(folder: Path) -> dict[str, pd.DataFrame]:
    """The predictions of each of ``MODELS`` that the run has; ``RunError`` if none."""
    paths = {name: Path(folder) / f"{name}.parquet" for name in MODELS}
    found = {name: pd.read_parquet(path) for name, path in paths.items() if path.is_file()}
    if not found:
        raise RunError("This run has no predictions: run notebook 03 with the same run_id first.")
    return found


def score_table(scores: Scores, measure: str = "macro_f1", floors: bool = True) -> pd.DataFrame:
    """One ``measure`` by domain and model, "overall" last.

    Args:
        scores: ``metrics.evaluate`` of each model's predictions.
        measure: one of ``metrics.MEASURES``.
        floors: whether columns with the macro-F1 of the trivial floors stand beside.

    Returns:
        Indexed by domain title: ``n``, a column per model, and a column per floor.
    """
    first = next(iter(scores.values()))
    rows = {}
    for key in [*first["domains"], "overall"]:
        parts = {name: _part(score, key) for name, score in scores.items()}
        own = parts[next(iter(scores))]
        row = {"n": own["n"]} | {name: part[measure] for name, part in parts.items()}
        row |= {floor.replace("_", " "): own["floors"][floor] for floor in FLOORS if floors}
        rows[DOMAINS[key].title if key in DOMAINS else "Overall"] = row
    return pd.DataFrame.from_dict(rows, orient="index").astype({"n": int})


def _part(score: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part: Mapping[str, Any] = score["overall"] if key == "overall" else score["domains"][key]
    return part


def cases(predictions: Predictions, count: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The best and the worst cases of the last model: right ones and wrong ones.

    Cases on which the model before it answered the other way come first (what training won, what
    it lost), and every domain has its turn before one has its second.

    Returns:
        Two tables of up to ``count`` rows, columns as ``answered``.
    """
    after, *earlier = [answered(table) for table in reversed(list(predictions.values()))]
    before = earlier[0].set_index("id")["exact_match"] if earlier else pd.Series(dtype=float)
    after = after.assign(changed=after["exact_match"] != after["id"].map(before))
    right = after["exact_match"] == 1
    return _in_turns(after[right], count), _in_turns(after[~right], count)


def _in_turns(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    order = {name: number for number, name in enumerate(DOMAINS)}
    rows = rows.sort_values("changed", ascending=False, kind="stable")
    rows = rows.assign(turn=rows.groupby("domain").cumcount(), place=rows["domain"].map(order))
    chosen = rows.sort_values(["turn", "place"], kind="stable").head(count)
    return chosen.drop(columns=["changed", "turn", "place"]).reset_index(drop=True)
