"""From a run's predictions to what notebook 05 says: its notes and its score tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from qoq_lib.domains import DOMAINS, domain_order
from qoq_lib.evaluation.decoding import decoding_notes
from qoq_lib.evaluation.metrics import FLOORS, MIN_PATIENTS, compare
from qoq_lib.runs import RunError
from qoq_lib.runs.manifest import Manifest

MODELS = ("untrained", "aligned", "trained")
"""The models of a run, in the order in which they come to be."""

Predictions = Mapping[str, pd.DataFrame]
Scores = Mapping[str, Mapping[str, Any]]

_ADDED = {
    "boxes": "boxes (no IoU)",
    "option_logprobs": "log-probabilities of the options (no AUROC, no calibration)",
    "sex": "sex and age (no subgroups)",
}


def read_predictions(folder: Path) -> dict[str, pd.DataFrame]:
    """The predictions of a run by model: others that were put there first, then ``MODELS``.

    Raises:
        RunError: there are none, or a file cannot be read or has no rows.
    """
    paths = {path.stem: path for path in sorted(Path(folder).glob("*.parquet"))}
    if not paths:
        raise RunError("This run has no predictions: run notebook 03 with the same run_id first.")
    order = [name for name in paths if name not in MODELS] + [m for m in MODELS if m in paths]
    return {name: _read(paths[name]) for name in order}


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RunError(f"predictions/{path.name} cannot be read: make it again.") from error
    if table.empty:
        raise RunError(f"predictions/{path.name} has no rows: predict with that model again.")
    return table


def notes(run: Path, predictions: Predictions, scores: Scores) -> list[str]:
    """Sentences about what the page below rests on and lacks; the first counts the questions."""
    last = list(scores)[-1]
    score = scores[last]
    n, patients = score["overall"]["n"], score["overall"]["patients"]
    said = [f"Models: {', '.join(scores)}; {n:,} test questions of {patients:,} patients."]
    said += decoding_notes(predictions)
    said += [f"{stage} of this run is recorded as {how}." for stage, how in _unfinished(run)]
    if few := _without_interval(score, few=True):
        said.append(f"Fewer than {MIN_PATIENTS} patients, so no interval: {', '.join(few)}.")
    if alike := _without_interval(score, few=False):
        said.append(f"The same score in every resample, so no interval: {', '.join(alike)}.")
    if len(score["domains"]) == 1:
        said.append("One domain has questions: the overall score is that domain's.")
    if "macro_f1" not in score["overall"]:
        said.append("No question has options to choose from, so there is no macro-F1.")
    lacking = [what for name, what in _ADDED.items() if name not in predictions[last]]
    if lacking:
        said.append(f"The {last} model's predictions do not hold {'; '.join(lacking)}.")
    other = [name for name in predictions if not _same_questions(predictions, name)]
    if other:
        said.append(
            f"Not the questions of the {last} model, so without a gain: {', '.join(other)}."
        )
    return said


def _without_interval(score: Mapping[str, Any], few: bool) -> list[str]:
    """Domains whose macro-F1, and overall measures that have no interval, for one of two reasons.

    ``few``: they rest on too few patients; else all resamples agree.
    """

    def bare(part: Mapping[str, Any]) -> list[str]:
        names = [name for name, bounds in part["intervals"].items() if bounds is None]
        return [n for n in names if n not in FLOORS and (n in part["too_few"]) is few]

    domains = score["domains"].items()
    found = [DOMAINS[key].title for key, part in domains if "macro_f1" in bare(part)]
    if few and score["overall"]["patients"] < MIN_PATIENTS:
        return [*found, "Overall"]
    names = [name.replace("_", " ") for name in bare(score["overall"])]
    return found + [f"Overall ({', '.join(names)})"] * bool(names)


def gains(predictions: Predictions) -> dict[str, dict[str, Any]]:
    """What the last model gains over each earlier one (``metrics.compare``) on the same ids."""
    *earlier, last = predictions
    return {
        name: compare(predictions[name], predictions[last])
        for name in earlier
        if _same_questions(predictions, name)
    }


def _same_questions(predictions: Predictions, name: str) -> bool:
    last = list(predictions)[-1]
    return sorted(predictions[name]["id"]) == sorted(predictions[last]["id"])


def _unfinished(run: Path) -> list[tuple[str, str]]:
    """Stages before this one that have not completed, and how they are recorded."""
    stages = Manifest(Path(run) / "run.json", Path(run).name).read()["stages"]
    before = {name: stage["status"] for name, stage in stages.items() if name < "04"}
    return [(name, status) for name, status in before.items() if status != "completed"]


def score_table(scores: Scores, measure: str = "macro_f1", floors: bool = True) -> pd.DataFrame:
    """One ``measure`` by domain and model, "overall" last.

    Args:
        scores: ``metrics.evaluate`` of each model's predictions.
        measure: one of ``metrics.MEASURES``.
        floors: whether columns with the macro-F1 of the trivial floors stand beside.

    Returns:
        Indexed by domain title: ``n`` (``basis``), a column per model, and a column per floor.
    """
    rows = {}
    for title, parts in by_domain(scores).items():
        own = next(iter(parts.values()))
        row = {"n": basis(parts, measure)["n"]}
        row |= {name: part.get(measure) for name, part in parts.items()}
        row |= {floor.replace("_", " "): own["floors"].get(floor) for floor in FLOORS if floors}
        rows[title] = row
    return pd.DataFrame.from_dict(rows, orient="index").astype({"n": int})


def interval_table(
    scores: Scores, measure: str = "macro_f1", by_set: bool = False, floors: bool = True
) -> pd.DataFrame:
    """``score_table`` as text with intervals, by domain or by data set, and with ``patients``."""
    rows = {}
    for title, parts in (by_dataset if by_set else by_domain)(scores).items():
        own = next(reversed(parts.values()))
        row = basis(parts, measure) | {name: told(part, measure) for name, part in parts.items()}
        row |= {floor.replace("_", " "): told(own, floor) for floor in FLOORS if floors}
        rows[title] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def basis(parts: Mapping[str, Mapping[str, Any]], measure: str) -> dict[str, int]:
    """``n`` rows and ``patients`` that a measure rests on in the last model that can tell it."""
    known = [part for part in parts.values() if measure in part["rows"]]
    counts = ("rows", "patients_of")
    n, patients = (known[-1][name][measure] if known else 0 for name in counts)
    return {"n": n, "patients": patients}


def measure_table(scores: Scores) -> pd.DataFrame:
    """Every overall measure by model, with intervals; ``n`` is the rows that it rests on."""
    parts = {name: score["overall"] for name, score in scores.items()}
    names = dict.fromkeys(name for part in parts.values() for name in part["rows"])
    rows = {
        name.replace("_", " "): {
            "n": max(part["rows"].get(name, 0) for part in parts.values()),
            **{model: told(part, name) for model, part in parts.items()},
        }
        for name in names
        if name not in FLOORS
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def gap_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """The gaps between subgroups of one model's scores: measure, best and worst group.

    "data sets": how many both groups have; the gap rests on them alone.
    """
    rows = [
        {
            "patients by": kind,
            "measure": measure.replace("_", " "),
            "highest": gap["highest"],
            "lowest": gap["lowest"],
            "gap": _with_interval(gap["value"], gap["interval"]),
            "data sets": gap["datasets"],
        }
        for kind, found in scores["subgroups"].items()
        for measure, gap in found["gaps"].items()
    ]
    return pd.DataFrame(rows)


def gains_table(gained: Scores, measure: str = "macro_f1") -> pd.DataFrame:
    """Gains in one measure over each earlier model by domain, with intervals; see ``gains``."""
    table = interval_table(gained, measure, floors=False)
    return table.rename(columns={name: f"over {name}" for name in gained})


def run_metrics(scores: Scores, measures: Sequence[str]) -> dict[str, float]:
    """Overall scores for ``run.json``, ``measure_model``: those that the questions can tell."""
    return {
        f"{measure}_{name}": score["overall"][measure]
        for measure in measures
        for name, score in scores.items()
        if measure in score["overall"]
    }


def by_domain(scores: Scores) -> dict[str, dict[str, Any]]:
    """Title of each domain, "Overall" last, to each model's scores there."""
    keys = domain_order([name for score in scores.values() for name in score["domains"]])
    found = {
        domain_title(key): {m: s["domains"][key] for m, s in scores.items() if key in s["domains"]}
        for key in keys
    }
    return found | {"Overall": {name: score["overall"] for name, score in scores.items()}}


def by_dataset(scores: Scores) -> dict[str, dict[str, Any]]:
    """Title of each data set after its domain's to each model's scores there."""
    found: dict[str, dict[str, Any]] = {}
    for model, score in scores.items():
        for domain, part in score["domains"].items():
            for name, own in part["datasets"].items():
                found.setdefault(f"{domain_title(domain)}: {name}", {})[model] = own
    return found


def told(scores: Mapping[str, Any], measure: str) -> str | None:
    """A score with its interval as text, ``None`` where the rows cannot tell it."""
    floors = scores.get("floors", {})
    value = scores.get(measure, floors.get(measure))
    return None if value is None else _with_interval(value, scores["intervals"].get(measure))


def _with_interval(value: float, interval: list[float] | None) -> str:
    digits = 3 if abs(value) < 10 else 1
    bounds = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else " [–]"
    return f"{value:.{digits}f}{bounds}"


def domain_title(key: str) -> str:
    """The title of a domain, or "Overall"."""
    return DOMAINS[key].title if key in DOMAINS else "Overall"
