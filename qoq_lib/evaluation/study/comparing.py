"""Each arm beside the baselines: paired differences and relative gains with their intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qoq_lib.evaluation.study.config import Study
from qoq_lib.evaluation.study.planning import DECODINGS, ArmRun
from qoq_lib.evaluation.study.scoring import (
    COMMON,
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
    mean_interval,
    over_seeds,
    ratio_interval,
    redrawn,
)
from qoq_lib.runs import derive_seed, write_text_atomic

RESULTS_FILE, COMPARISON_FILE, COST_FILE = "results.csv", "comparison.csv", "cost.csv"


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
    """Every arm beside every baseline, over the seeds that both have finished.

    Returns:
        ``decoding, baseline, arm, domain, metric, seeds``; ``baseline_mean`` and ``arm_mean``;
        ``difference`` (arm - baseline, paired by seed) with ``low`` and ``high``, the 95 % t
        interval over seeds, and ``patients_low`` and ``patients_high``, that of the hierarchical
        bootstrap (``macro_f1`` only); where the seeds show the same patients, ``low`` and ``high``
        are the wider of the two; ``gain_pct``, the gain of the mean relative to the baseline's
        in percent, with Fieller's ``gain_low`` and ``gain_high``. What has no interval is NaN.
    """
    keys = ["decoding", "domain", "metric"]
    compared = results[~results["metric"].str.startswith("floor_")]
    records = []
    for key, part in compared.groupby(keys, sort=False):
        values = part.pivot(index="seed", columns="arm", values="value")
        for baseline in [name for name in study.baselines if name in values]:
            for arm in [one.name for one in study.arms if one.name in values]:
                if arm != baseline:
                    both = (values[arm].notna() & values[baseline].notna()).to_numpy()
                    pair = [values[name].to_numpy()[both] for name in (arm, baseline)]
                    facts = dict(zip(keys, key, strict=True)) | {"baseline": baseline, "arm": arm}
                    records.append(facts | _compared(*pair))
    columns = ["decoding", "baseline", "arm", "domain", "metric"]
    table = pd.DataFrame(records)
    table = table.merge(bootstrapped, how="left", on=columns)
    if study.shares_patients:
        table["low"] = np.fmin(table["low"], table["patients_low"])
        table["high"] = np.fmax(table["high"], table["patients_high"])
    without_ratio = (table["domain"] == GAP) | (table["metric"] == "invalid_rate")
    table.loc[without_ratio, ["gain_pct", "gain_low", "gain_high"]] = np.nan
    return table[[*columns, *[name for name in table if name not in columns]]]


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
    """``patients_low`` and ``patients_high`` of macro-F1 by decoding, baseline, arm and domain."""
    done = [run for run in runs if run.finished(study.split)]
    rare = rare_domains(domain_rows([run.start for run in done]))
    records = []
    for decoding in DECODINGS:
        draws = _draws(study, done, decoding, rare, seed)
        for baseline in study.baselines:
            for arm in [one.name for one in study.arms if one.name != baseline]:
                for domain, parts in _differences(draws.values(), arm, baseline).items():
                    low, high = over_seeds(
                        parts, derive_seed(seed, "seeds"), same_patients=study.shares_patients
                    )
                    records.append((decoding, baseline, arm, domain, "macro_f1", low, high))
    columns = ["decoding", "baseline", "arm", "domain", "metric", "patients_low", "patients_high"]
    return pd.DataFrame(records, columns=columns)


def _differences(
    draws: Iterable[Mapping[str, Mapping[str, np.ndarray]]], arm: str, baseline: str
) -> dict[str, list[np.ndarray]]:
    """By domain, the draws of arm minus baseline of each seed that has both of them and it."""
    found: dict[str, list[np.ndarray]] = {}
    for one in draws:
        first, second = one.get(arm, {}), one.get(baseline, {})
        for domain in [name for name in first if name in second]:
            found.setdefault(domain, []).append(first[domain] - second[domain])
    return found


def _draws(
    study: Study, runs: Sequence[ArmRun], decoding: str, rare: Sequence[str], seed: int
) -> dict[int, dict[str, dict[str, np.ndarray]]]:
    """Draws of macro-F1 by seed, arm and domain, with the groups of domains."""
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
        found[one] = {name: _with_groups(patients.macro_f1(name), rare) for name in arms}
    return found


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
