"""A run by the paper's own rules, beside the numbers that the paper prints."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from qoq_lib.data.sources.ecg import SOURCES as ECG_SOURCES
from qoq_lib.domains import DOMAINS, domain_order
from qoq_lib.evaluation.metrics import PredictionsError, evaluate
from qoq_lib.evaluation.report import domain_title, told

PAPER_RESULTS = Path(__file__).with_name("paper_results.csv")

PAPER_MODELS = {"2": ("GRPO", "DRPO"), "5": ("GPT-4o", "QoQ-Med-32B")}
"""Models of the paper that stand beside a run, by the table that prints them."""

SET_MODELS = {
    "8-14": ("GRPO", "DRPO 32B"),
    "4": ("GRPO, Full", "DRPO, Full"),
    "Fig. 3a": ("GRPO", "DRPO"),
}
"""GRPO and DRPO where the paper prints numbers of data sets, of MIMIC-IV's tasks, of all ECGs."""

_OWN_NAMES = {
    ("chest_xray", "VINDR"): "vindr_cxr",
    ("mammography", "VINDR"): "vindr_mammo",
    ("mammography", "CBIS"): "cbis_ddsm",
    ("fundus", "JINCHI"): "jichi",
    ("fundus", "APTOS"): "aptos2019",
    ("fundus", "MESSIDOR-2"): "messidor2",
    ("multimodal", "length of stay"): "mimic_iv_length_of_stay",
    ("multimodal", "mortality"): "mimic_iv_mortality",
}
"""Data sets whose printed name is not ours in capitals."""


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


def beside_paper_sets(scores: Mapping[str, Any]) -> pd.DataFrame:
    """One model by the paper's own rules beside the paper's numbers, by data set that both have.

    The paper prints one accuracy for its ECGs together; it stands beside the run's ECGs where these
    are all of the paper's data sets.

    Args:
        scores: of ``by_paper``.

    Returns:
        By domain title and data set: ``n``, then for F1 and accuracy the run's score with its
        interval as text and GRPO's and DRPO's (``SET_MODELS``) as numbers, then where these are
        printed. Empty where the run has no data set of the paper.
    """
    printed, rows = _printed_sets(), {}
    for key, (title, part) in _own_sets(scores).items():
        if key in printed:
            rows[title] = _beside(part, printed[key])
    return pd.DataFrame.from_dict(rows, orient="index")


def _own_sets(scores: Mapping[str, Any]) -> dict[tuple[str, str], tuple[str, Any]]:
    """Title and scores of each data set by its domain and name; of all ECGs by no name."""
    found: dict[tuple[str, str], tuple[str, Any]] = {}
    for domain in domain_order(list(scores["domains"])):
        part, title = scores["domains"][domain], domain_title(domain)
        found |= {
            (domain, name): (f"{title}: {name}", own) for name, own in part["datasets"].items()
        }
        if domain == "ecg" and set(part["datasets"]) <= {source.name for source in ECG_SOURCES}:
            found[domain, ""] = (f"{title}: all", part)
    return found


def _printed_sets() -> dict[tuple[str, str], pd.DataFrame]:
    """What the paper prints of ``SET_MODELS``, by domain and our name of the data set."""
    known = pd.read_csv(PAPER_RESULTS, dtype={"table": str}, keep_default_na=False)
    models = zip(known["table"], known["model"], strict=True)
    chosen = known[[model in SET_MODELS.get(table, ()) for table, model in models]]
    names = [
        _OWN_NAMES.get((domain, name), name.lower().replace("-", "_"))
        for domain, name in zip(chosen["domain"], chosen["dataset"], strict=True)
    ]
    return {key: group for key, group in chosen.assign(own=names).groupby(["domain", "own"])}


def _beside(part: Mapping[str, Any], printed: pd.DataFrame) -> dict[str, Any]:
    values = printed.set_index(["metric", "model"])["value"]
    row: dict[str, Any] = {"n": part["rows"].get("f1", 0)}
    for metric, title in (("f1", "F1"), ("accuracy", "accuracy")):
        row[f"{title}: this run"] = told(part, metric)
        for name, model in zip(("GRPO", "DRPO"), SET_MODELS[printed["table"].iloc[0]], strict=True):
            row[f"{title}: paper's {name}"] = values.get((metric, model))
    return row | {"printed in": printed["source"].iloc[0].partition(", ")[2]}
