"""A run by the paper's own rules, beside the numbers that the paper prints."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from qoq_lib.domains import DOMAINS, domain_order
from qoq_lib.evaluation.metrics import PredictionsError, evaluate
from qoq_lib.evaluation.report import domain_title, told

PAPER_RESULTS = Path(__file__).with_name("paper_results.csv")

PAPER_MODELS = {"2": ("GRPO", "DRPO"), "5": ("GPT-4o", "QoQ-Med-32B")}
"""Models of the paper that stand beside a run, by the table that prints them."""


@cache
def averaged_domains() -> tuple[str, ...]:
    """The domains over which the overall numbers of ``PAPER_MODELS`` are means: not ECG."""
    known = pd.read_csv(PAPER_RESULTS, dtype=str)
    inside = known[known["table"].isin(PAPER_MODELS) & known["domain"].isin(DOMAINS)]
    return tuple(domain_order(list(inside["domain"].unique())))


def by_paper(predictions: pd.DataFrame, seed: int) -> dict[str, Any]:
    """``evaluate(paper=True)`` whose overall scores are over ``averaged_domains`` alone.

    Where none of them has questions, ``"overall"`` is missing. ``seed`` is of the resamples.
    """
    scores = evaluate(predictions, paper=True, seed=seed)
    inside = predictions["domain"].isin(averaged_domains())
    if not inside.all():
        del scores["overall"]
    if inside.any() and not inside.all():
        scores["overall"] = evaluate(predictions[inside], paper=True, seed=seed)["overall"]
    return scores


def beside_paper(scores: Mapping[str, Any], metric: str) -> pd.DataFrame:
    """One model by the paper's own rules beside two floors and the paper's models.

    Args:
        scores: of ``by_paper``.
        metric: ``"f1"`` or ``"accuracy"``.

    Returns:
        By domain title, "Overall" last: ``n``, the run's score with its interval as text, and the
        others as numbers.
    """
    floors = {"invalid": "floor: invalid", "all_options": "floor: all options"}
    rows = {}
    for title, part in _parts(scores).items():
        known = part if metric == "accuracy" else part["floors"]
        prefix = "accuracy_" if metric == "accuracy" else ""
        rows[title] = {"n": part["rows"].get(metric, 0), "this run": told(part, metric)}
        rows[title] |= {name: known.get(prefix + key) for key, name in floors.items()}
    printed = [paper_table(metric, models, table) for table, models in PAPER_MODELS.items()]
    own = pd.DataFrame.from_dict(rows, orient="index")
    return own.join([table.add_prefix("paper: ") for table in printed])


def _parts(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Scores by domain title, "Overall" last where there are any."""
    keys = domain_order(list(scores["domains"]))
    parts = {domain_title(key): scores["domains"][key] for key in keys}
    return parts | ({"Overall": scores["overall"]} if "overall" in scores else {})


def overall_basis(scores: Mapping[str, Any]) -> str:
    """What the row "Overall" of ``beside_paper`` is a mean over, for its caption."""
    known = {key for key, part in scores["domains"].items() if "f1" in part}
    covered = [domain_title(key) for key in averaged_domains() if key in known]
    others = [domain_title(key) for key in averaged_domains() if key not in known]
    if not covered:
        return "no Overall, as the paper averages none of the domains with options to choose from"
    more = f", the paper's also over {', '.join(others)}" if others else ""
    return f"Overall is over {', '.join(covered)}{more}"


def paper_table(metric: str, models: tuple[str, ...], table: str) -> pd.DataFrame:
    """Numbers that the paper prints, by domain title and model, "Overall" last.

    Args:
        metric: ``"f1"`` or ``"accuracy"``, in the paper's sense.
        models: as ``paper_results.csv`` names them.
        table: of the paper, as the file names it.

    Raises:
        PredictionsError: the paper has no such number.
    """
    known = pd.read_csv(PAPER_RESULTS, dtype={"table": str}, keep_default_na=False)
    chosen = known[
        (known["table"] == table) & (known["metric"] == metric) & known["model"].isin(models)
    ]
    if missing := [name for name in models if name not in set(chosen["model"])]:
        raise PredictionsError(f"Table {table} of the paper has no {metric} of {missing[0]!r}.")
    wide = chosen.pivot(index="domain", columns="model", values="value")[list(models)]
    order = [*domain_order([name for name in wide.index if name in DOMAINS]), "overall"]
    wide = wide.loc[order].rename(index={name: domain_title(name) for name in order})
    return wide.rename_axis(index=None, columns=None)
