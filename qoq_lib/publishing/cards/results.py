"""Scores of a run in the three forms that the Hub reads: tables, model index, benchmark results."""

from collections.abc import Iterator
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from qoq_lib.domains import DOMAINS
from qoq_lib.evaluation import report
from qoq_lib.publishing.cards.markdown import section, table
from qoq_lib.publishing.record import ANALYSIS, RunRecord

TASK = "image-text-to-text"
_METRICS = {
    "macro_f1": "f1",
    "balanced_accuracy": "balanced_accuracy",
    "exact_match": "exact_match",
}
"""Measures of the model index, and the Hub's names for them."""


def results_section(record: RunRecord) -> str:
    """Macro-F1 by domain and data set with n, intervals and floors; every measure; subgroups."""
    scores, name = record.scores, record.checkpoint
    return section(
        "Results",
        f"Of the {name} model and the others of the same run, on the test split. Scores are "
        "unweighted means over classes, then data sets, then domains; in brackets the 95 % "
        "interval over resampled patients, a dash where there are too few of them or all resamples "
        "agree. The floors need no model: *constant* is the best single answer to every question, "
        "*invalid* none that can be read, *all options* every option. **A score inside the floors "
        "is no skill.**",
        "### Macro-F1 by domain",
        table(report.interval_table(scores), "domain"),
        "### Macro-F1 by data set",
        table(report.interval_table(scores, by_set=True), "data set"),
        "### Every measure, overall",
        table(report.measure_table(scores), "measure"),
        _subgroups(scores[name]),
    )


def _subgroups(scores: dict[str, Any]) -> str:
    gaps = report.gap_table(scores)
    heading = "### Subgroups\n\n"
    if gaps.empty:
        return (
            heading
            + "The test split has no two groups by sex or age with enough patients in one data set."
        )
    return (
        heading + "Best group minus worst group of patients, over the data sets in which both have "
        "enough patients; the two were chosen because they differ most.\n\n" + table(gaps)
    )


def eval_results(record: RunRecord) -> list[EvalResult]:
    """The model index: each data set of the test split, and the mean over the domains."""
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=name,
            dataset_name=title,
            dataset_split="test",
            dataset_args={"fingerprint": record.stage["dataset"]["fingerprint"]},
            metric_type=kind,
            metric_name=measure.replace("_", " "),
            metric_value=part[measure],
            metric_args=_basis(part, measure),
        )
        for name, title, part in _parts(record)
        for measure, kind in _METRICS.items()
        if measure in part
    ]


def _parts(record: RunRecord) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, title and scores of each data set, then of the whole."""
    scores = record.scores[record.checkpoint]
    for domain, part in scores["domains"].items():
        for name, own in part["datasets"].items():
            yield name, f"{record.cards[name].title} ({DOMAINS[domain].title})", own
    yield f"run-{record.run_id}", "All domains of the run's test split", scores["overall"]


def _basis(part: dict[str, Any], measure: str) -> dict[str, Any]:
    facts = {"n": part["rows"][measure], "patients": part["patients_of"][measure]}
    facts["interval_95"] = part["intervals"][measure]
    if measure == "macro_f1":
        facts["floors"] = part.get("floors")
    return facts


def benchmark_results(record: RunRecord, benchmark: str) -> str:
    """``.eval_results/*.yaml``: macro-F1 by domain on a benchmark that the Hub holds.

    Args:
        record: of the run.
        benchmark: Hub id of the data set whose test questions the run was scored on, with the
            domains' names as its tasks.
    """
    scores = record.scores[record.checkpoint]
    parts = {"overall": scores["overall"], **scores["domains"]}
    entries = [
        EvalResultEntry(
            dataset_id=benchmark,
            task_id=name,
            value=part["macro_f1"],
            date=record.stages[ANALYSIS]["ended"],
            notes=f"macro-F1, {report.told(part, 'macro_f1')}, n = {part['rows']['macro_f1']}",
        )
        for name, part in parts.items()
        if "macro_f1" in part
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
