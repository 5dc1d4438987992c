"""What a study may say: each claim with its interval, and whether it held."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from qoq_lib.evaluation.study.comparing import Tables
from qoq_lib.evaluation.study.config import Study
from qoq_lib.evaluation.study.planning import DECODINGS
from qoq_lib.evaluation.study.scoring import FLOORS_BESIDE, GAP, OVERALL, RARE
from qoq_lib.evaluation.study.statistics import Interval, mean_interval

Verdict = Literal["held", "did not hold", "open"]
PAPER_GAIN = 43.0
"""Percent by which the paper's macro-F1 under DRPO exceeds that of critic-free methods."""

PAPER_IOU = 10.0
"""How many times the IoU of open models the paper's model reaches."""

DRPO_ARMS = ("drpo", "drpo_paper", "drpo_released")


_FLOORS = {
    "macro_f1": "is above the floor of listing every option",
    "box_iou": "has a higher IoU than one box per domain for all patients",
}

_BESIDE = {
    "penalised_f1": "in macro-F1 with a price on naming too much",
    "exact_match": "in exact match",
}
"""Scores that over-answering does not raise, by how a claim names them."""


@dataclass(frozen=True)
class Claim:
    """A sentence, the decoding it is about, the interval it stands on, and the verdict.

    ``unit`` is that of the interval: ``points`` of a score, or ``%``.
    """

    text: str
    decoding: str
    interval: Interval
    unit: Literal["points", "%"]
    verdict: Verdict


def claims_of(study: Study, tables: Tables) -> list[Claim]:
    """Every claim that has an interval, for greedy and for sampled answers."""
    claims = [claim for decoding in DECODINGS for claim in _claims(study, tables, decoding)]
    return [
        claim for claim in claims if np.isfinite([claim.interval.low, claim.interval.high]).all()
    ]


def _claims(study: Study, tables: Tables, decoding: str) -> Iterator[Claim]:
    rows = _rows(tables.comparison, decoding, "macro_f1")
    arms = [arm.name for arm in study.arms if arm.name in set(tables.results["arm"])]
    leading = study.baselines[0]
    if (leading, "untrained", OVERALL) in rows.index:
        row = rows.loc[(leading, "untrained", OVERALL)]
        yield _beats(f"Training with {leading} improves on its start", decoding, row)
    for arm in [name for name in DRPO_ARMS if name in arms]:
        for baseline in [name for name in study.baselines if name not in (arm, "untrained")]:
            if (arm, baseline, OVERALL) not in rows.index:
                continue
            yield _beats(f"{arm} beats {baseline}", decoding, rows.loc[(arm, baseline, OVERALL)])
            yield from _beside(tables.comparison, arm, baseline, decoding)
            yield _gains(arm, baseline, decoding, rows)
            if baseline == leading:
                yield from _by_rarity(arm, baseline, decoding, rows)
    for arm in [name for name in (leading, "drpo") if name in arms]:
        yield _above_floor(rows, arm, decoding, "macro_f1")
    boxes = _rows(tables.comparison, decoding, "box_iou")
    for arm in [name for name in (leading, *DRPO_ARMS) if name in arms]:
        if (arm, "untrained", OVERALL) in boxes.index:
            row = boxes.loc[(arm, "untrained", OVERALL)]
            yield _beats(f"{arm} has a higher IoU than its start", decoding, row)
            over_seeds = (
                _times_the_start(tables.results, arm, decoding),
                _above_floor(boxes, arm, decoding, "box_iou"),
            )
            yield from map(_left_open, over_seeds) if study.shares_patients else over_seeds


def _beside(comparison: pd.DataFrame, arm: str, baseline: str, decoding: str) -> Iterator[Claim]:
    for metric, words in _BESIDE.items():
        rows = _rows(comparison, decoding, metric)
        yield _beats(
            f"{arm} beats {baseline} {words}", decoding, rows.loc[(arm, baseline, OVERALL)]
        )


def _rows(comparison: pd.DataFrame, decoding: str, metric: str) -> pd.DataFrame:
    chosen = (comparison["decoding"] == decoding) & (comparison["metric"] == metric)
    return comparison[chosen].set_index(["arm", "baseline", "domain"])


def _times_the_start(results: pd.DataFrame, arm: str, decoding: str) -> Claim:
    """On the difference, which has an interval where the ratio to a start near 0 has none."""
    values = _by_arm(results, decoding, "box_iou")
    interval = mean_interval((values[arm] - PAPER_IOU * values["untrained"]).dropna().to_numpy())
    text = (
        f"The mean IoU of {arm} is {PAPER_IOU:.0f} times that of its start or more: IoU minus "
        f"{PAPER_IOU:.0f} times the start's"
    )
    return Claim(text, decoding, interval, "points", _verdict(interval))


def _gains(arm: str, baseline: str, decoding: str, rows: pd.DataFrame) -> Claim:
    """On the mean: an interval that reaches below the paper's gain but not to 0 still holds."""
    gain = _interval(rows.loc[(arm, baseline, OVERALL)], "gain_pct", "gain_low", "gain_high")
    verdict: Verdict = "did not hold" if gain.high < PAPER_GAIN else "open"
    if gain.mean >= PAPER_GAIN and gain.low > 0:
        verdict = "held"
    text = f"The mean gain of {arm} on {baseline} is {PAPER_GAIN:.0f} % or more, and surely above 0"
    return Claim(text, decoding, gain, "%", verdict)


def _by_rarity(arm: str, baseline: str, decoding: str, rows: pd.DataFrame) -> Iterator[Claim]:
    if (arm, baseline, RARE) in rows.index:
        yield _beats(
            f"{arm} beats {baseline} in the rare domains", decoding, rows.loc[(arm, baseline, RARE)]
        )
    if (arm, baseline, GAP) in rows.index:
        text = f"{arm} gains more on {baseline} in the rare domains than in the common ones"
        yield _beats(text, decoding, rows.loc[(arm, baseline, GAP)])


def _beats(text: str, decoding: str, row: pd.Series) -> Claim:
    interval = _interval(row, "difference", "low", "high")
    return Claim(text, decoding, interval, "points", _verdict(interval))


def _above_floor(rows: pd.DataFrame, arm: str, decoding: str, metric: str) -> Claim:
    row = rows.loc[(arm, FLOORS_BESIDE[metric], OVERALL)]
    return _beats(f"{arm} {_FLOORS[metric]}", decoding, row)


def _left_open(claim: Claim) -> Claim:
    """Patients are not redrawn for it, and seeds that share them are no independent evidence."""
    reason = "left open: this interval does not know that the seeds share patients"
    return replace(claim, text=f"{claim.text} ({reason})", verdict="open")


def _by_arm(results: pd.DataFrame, decoding: str, metric: str) -> pd.DataFrame:
    """Overall values, seeds x arms."""
    chosen = (results["decoding"] == decoding) & (results["domain"] == OVERALL)
    rows = results[chosen & (results["metric"] == metric)]
    return rows.pivot(index="seed", columns="arm", values="value")


def _interval(row: pd.Series, mean: str, low: str, high: str) -> Interval:
    return Interval(float(row[mean]), float(row[low]), float(row[high]), int(row["seeds"]))


def _verdict(interval: Interval) -> Verdict:
    """Held or not where the whole interval is on one side of zero; open else."""
    if interval.low > 0:
        return "held"
    return "did not hold" if interval.high < 0 else "open"
