"""Each arm beside the baselines: paired differences and relative gains with their intervals."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qoq_lib.evaluation.study.config import Study
from qoq_lib.evaluation.study.planning import DECODINGS, ArmRun
from qoq_lib.evaluation.study.scoring import (
    COMMON,
    FLOORS_BESIDE,
    GAP,
    OVERALL,
    RARE,
    cost_table,
    curves_table,
    domain_rows,
    rare_domains,
    results_table,
)
from qoq_lib.evaluation.study.statistics import (
    DRAWS,
    PatientDraws,
    drawn_means,
    ends,
    mean_interval,
    ratio_interval,
    redrawn,
)
from qoq_lib.runs import derive_seed, write_text_atomic

RESULTS_FILE, COMPARISON_FILE, COST_FILE = "results.csv", "comparison.csv", "cost.csv"
KEYS = ["decoding", "baseline", "arm", "domain", "metric"]
ENDS = ["patients_low", "patients_high", "patients_gain_low", "patients_gain_high"]
Key = tuple[str, str]  # metric, domain
Scores = dict[Key, np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Tables:
    """All numbers of a study.

    Attributes:
        results: as ``scoring.results_table``.
        comparison: as ``comparison_table``.
        cost: as ``scoring.cost_table``.
        curves: as ``scoring.curves_table``.
        train_rows: as ``scoring.domain_rows``.
    """

    results: pd.DataFrame
    comparison: pd.DataFrame
    cost: pd.DataFrame
    curves: pd.DataFrame
    train_rows: pd.Series


def save_tables(study: Study, runs: Sequence[ArmRun], folder: Path, seed: int = 0) -> Tables:
    """Tables of the finished runs, written as CSV files, too; ``seed`` is the bootstrap's."""
    results = results_table(study, runs)
    tables = Tables(
        results,
        comparison_table(study, results, bootstrap(study, runs, seed)),
        cost_table(study, runs),
        curves_table(runs),
        domain_rows([run.start for run in runs if run.finished(study.split)]),
    )
    named = {RESULTS_FILE: results, COMPARISON_FILE: tables.comparison, COST_FILE: tables.cost}
    for name, table in named.items():
        write_text_atomic(folder / name, table.to_csv(index=False))
    return tables


def comparison_table(
    study: Study, results: pd.DataFrame, bootstrapped: pd.DataFrame
) -> pd.DataFrame:
    """Every arm beside every baseline and floor, over the seeds that both have finished.

    Args:
        study: see ``config``.
        results: as ``scoring.results_table``.
        bootstrapped: as ``bootstrap``.

    Returns:
        ``decoding, baseline, arm, domain, metric, seeds``; ``baseline_mean`` and ``arm_mean``;
        ``difference`` (arm - baseline, paired by seed) with ``low`` and ``high``, the 95 % t
        interval over seeds, and ``patients_low`` and ``patients_high``, that of the hierarchical
        bootstrap; ``gain_pct``, the gain of the mean relative to the baseline's in percent, with
        Fieller's ``gain_low`` and ``gain_high``. Where the seeds show the same patients, ``low``
        and ``high``, and those of the gain, are the wider of t or Fieller and bootstrap. A
        ``baseline`` is an arm or one of ``scoring.FLOORS_BESIDE``. What has no interval is NaN.
    """
    keys = ["decoding", "domain", "metric"]
    records = []
    for key, part in _with_floors(results).groupby(keys, sort=False):
        values = part.pivot(index="seed", columns="arm", values="value")
        arms = [one.name for one in study.arms if one.name in values]
        for baseline, arm in _pairs(study, arms, values):
            both = (values[arm].notna() & values[baseline].notna()).to_numpy()
            if both.any():
                pair = [values[name].to_numpy()[both] for name in (arm, baseline)]
                facts = dict(zip(keys, key, strict=True)) | {"baseline": baseline, "arm": arm}
                records.append(facts | _compared(*pair))
    table = pd.DataFrame(records).merge(bootstrapped, how="left", on=KEYS)
    if study.shares_patients:
        table["low"] = np.fmin(table["low"], table["patients_low"])
        table["high"] = np.fmax(table["high"], table["patients_high"])
        # Fieller's interval may have no end, and then the gain has none.
        table["gain_low"] = np.minimum(table["gain_low"], table["patients_gain_low"])
        table["gain_high"] = np.maximum(table["gain_high"], table["patients_gain_high"])
    without_ratio = (table["domain"] == GAP) | (table["metric"] == "invalid_rate")
    table.loc[without_ratio, ["gain_pct", "gain_low", "gain_high"]] = np.nan
    table = table.drop(columns=["patients_gain_low", "patients_gain_high"])
    return table[[*KEYS, *[name for name in table if name not in KEYS]]]


def _with_floors(results: pd.DataFrame) -> pd.DataFrame:
    """Each of ``FLOORS_BESIDE`` as one more arm of its measure; all arms of a seed share it."""
    metric = results["metric"]
    floors = [
        results[metric == floor].assign(arm=floor, metric=measure)
        for measure, floor in FLOORS_BESIDE.items()
    ]
    table = pd.concat([results[~metric.str.startswith("floor_")], *floors])
    return table.drop_duplicates(["arm", "seed", "decoding", "domain", "metric"])


def _pairs(study: Study, arms: Sequence[str], known: Container[str]) -> list[tuple[str, str]]:
    """Baseline and arm, of what is ``known``."""
    baselines = [*study.baselines, *FLOORS_BESIDE.values()]
    return [
        (baseline, arm)
        for baseline in baselines
        for arm in arms
        if arm != baseline and baseline in known
    ]


def _compared(arm: np.ndarray, baseline: np.ndarray) -> dict[str, float]:
    difference, ratio = mean_interval(arm - baseline), ratio_interval(arm, baseline)
    return {
        "seeds": difference.n,
        "baseline_mean": baseline.mean(),
        "arm_mean": arm.mean(),
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "gain_pct": 100 * (ratio.mean - 1),
        "gain_low": 100 * (ratio.low - 1),
        "gain_high": 100 * (ratio.high - 1),
    }


def bootstrap(study: Study, runs: Sequence[ArmRun], seed: int) -> pd.DataFrame:
    """The hierarchical bootstrap's ends, by decoding, baseline, arm, domain and metric.

    ``patients_low`` and ``patients_high`` are those of the difference, ``patients_gain_low`` and
    ``patients_gain_high`` those of the relative gain in percent. The floor of IoU is not redrawn.
    """
    done = [run for run in runs if run.finished(study.split)]
    rare = rare_domains(domain_rows([run.start for run in done]))
    arms = [arm.name for arm in study.arms]
    records = []
    for decoding in DECODINGS:
        draws = _draws(study, done, decoding, rare, seed)
        known = {name for one in draws.values() for name in one}
        for baseline, arm in _pairs(study, [name for name in arms if name in known], known):
            for (metric, domain), pairs in _shared(draws.values(), arm, baseline).items():
                found = _redrawn_ends(study, pairs, derive_seed(seed, "seeds"))
                records.append((decoding, baseline, arm, domain, metric, *found))
    return pd.DataFrame(records, columns=[*KEYS, *ENDS])


def _redrawn_ends(study: Study, pairs: Sequence[Pair], seed: int) -> tuple[float, ...]:
    """``ENDS`` of an arm and its baseline, of which ``pairs`` holds the draws of each seed."""
    first, second = (
        drawn_means(draws, seed, same_patients=study.shares_patients)
        for draws in zip(*pairs, strict=True)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = 100 * (first / second - 1)
    return *ends(first - second), *ends(gains)


def _shared(draws: Iterable[Mapping[str, Scores]], arm: str, baseline: str) -> dict[Key, list]:
    """By metric and domain, the draws of arm and baseline at each seed that has them of both."""
    found: dict[Key, list] = {}
    for one in draws:
        first, second = one.get(arm, {}), one.get(baseline, {})
        for key in [key for key in first if key in second]:
            found.setdefault(key, []).append((first[key], second[key]))
    return found


def _draws(
    study: Study, runs: Sequence[ArmRun], decoding: str, rare: Sequence[str], seed: int
) -> dict[int, dict[str, Scores]]:
    """Draws by seed, arm (or floor), metric and domain, with the groups of domains."""
    tables: dict[int, dict[str, pd.DataFrame]] = {}
    for run in runs:
        answers = pd.read_parquet(run.predictions(study.split, decoding))
        tables.setdefault(run.start.seed, {})[run.arm.name] = answers
    splits = {one: next(iter(arms.values())) for one, arms in tables.items()}
    found = {}
    for one, arms in sorted(tables.items()):
        shown = [*splits.values()] if study.shares_patients else [splits[one]]
        name = "patients" if study.shares_patients else f"patients/{one}"
        patients = PatientDraws(arms, redrawn(shown, DRAWS, derive_seed(seed, name)))
        scores = {arm: patients.scores(arm) for arm in arms}
        floors = [own.pop("all_options", {}) for own in scores.values()]  # alike in all arms
        scores[FLOORS_BESIDE["macro_f1"]] = {"macro_f1": floors[0]}
        found[one] = {arm: _by_key(own, rare) for arm, own in scores.items()}
    return found


def _by_key(scores: Mapping[str, dict[str, np.ndarray]], rare: Sequence[str]) -> Scores:
    return {
        (metric, domain): draws
        for metric, domains in scores.items()
        for domain, draws in _with_groups(domains, rare).items()
    }


def _with_groups(scores: dict[str, np.ndarray], rare: Sequence[str]) -> dict[str, np.ndarray]:
    own = [name for name in scores if name != OVERALL]
    groups = {RARE: [name for name in own if name in rare]}
    groups[COMMON] = [name for name in own if name not in rare]
    means = {
        group: np.mean([scores[name] for name in names], axis=0)
        for group, names in groups.items()
        if names
    }
    gap = {GAP: means[RARE] - means[COMMON]} if len(means) == 2 else {}
    return scores | means | gap
