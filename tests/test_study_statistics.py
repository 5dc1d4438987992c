"""The intervals of a study, against numbers worked out by hand and against scipy."""

import numpy as np
import pandas as pd
import pytest
from fictions import joined
from scipy import stats

from qoq_lib.evaluation.metrics import answered, evaluate
from qoq_lib.evaluation.study.comparing import comparison_table
from qoq_lib.evaluation.study.config import Study
from qoq_lib.evaluation.study.scoring import rare_domains, score_records
from qoq_lib.evaluation.study.statistics import (
    PatientDraws,
    mean_interval,
    over_seeds,
    ratio_interval,
    redrawn,
    weighted_macro_f1,
)

NO_BOOTSTRAP = pd.DataFrame(
    columns=[
        *("decoding", "baseline", "arm", "domain", "metric"),
        *("patients_low", "patients_high"),
    ]
)


def study(*arms: str, baselines: tuple[str, ...] = ("grpo",)) -> Study:
    return Study(
        name="made_up",
        data={"source": "phantom"},
        model_size="tiny",
        seeds=[0, 1, 2],
        baselines=list(baselines),
        arms=[{"name": name, "method": name} for name in arms],
    )


def results(**scores: list[float]) -> pd.DataFrame:
    facts = {"decoding": "greedy", "domain": "overall", "metric": "macro_f1", "n": 10}
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "value": value} | facts
            for arm, values in scores.items()
            for seed, value in enumerate(values)
            if not np.isnan(value)
        ]
    )


def predictions(seed: int, patients: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    options = {"mri": ["a", "b", "c"], "ct": ["d", "e"], "ct2": ["e", "f"]}
    rows = []
    for number in range(90):
        dataset = list(options)[number % 3]
        true, said = rng.choice(options[dataset], 2)
        rows.append(
            {
                "id": f"{dataset}/{number}",
                "domain": dataset[:2] if dataset != "mri" else "mri",
                "dataset": dataset,
                "patient_id": f"p{number % patients}",
                "options": options[dataset],
                "answers": [true],
                "completion": f"\\boxed{{{said}}}",
            }
        )
    return pd.DataFrame(rows)


def test_the_interval_of_a_mean_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0])  # standard error 1 / sqrt(3), t of two degrees 4.3027
    assert found.mean == 2 and found.n == 3
    assert (found.low, found.high) == pytest.approx((-0.484138, 4.484138), abs=1e-5)


def test_one_seed_has_no_interval() -> None:
    assert np.isnan([mean_interval([0.5]).low, ratio_interval([0.5], [0.4]).high]).all()


def test_fiellers_ends_are_ratios_on_the_edge_of_significance() -> None:
    above, below = np.array([0.62, 0.71, 0.55, 0.66]), np.array([0.42, 0.44, 0.39, 0.47])
    found = ratio_interval(above, below)
    assert found.mean == pytest.approx(above.mean() / below.mean())
    for ratio in (found.low, found.high):
        assert stats.ttest_1samp(above - ratio * below, 0).pvalue == pytest.approx(0.05)
    assert found.low < found.mean < found.high


def test_a_ratio_to_something_near_zero_has_no_interval() -> None:
    found = ratio_interval([0.3, 0.2, 0.1], [0.1, -0.1, 0.02])
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(ratio_interval([0.3, 0.2], [0.0, 0.0]).mean)


def test_arms_are_compared_seed_by_seed() -> None:
    table = comparison_table(
        study("grpo", "drpo"), results(grpo=[0.2, 0.4, 0.6], drpo=[0.3, 0.6, 0.6]), NO_BOOTSTRAP
    )
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["arm"], row["baseline"], row["seeds"]) == ("drpo", "grpo", 3)
    assert row["difference"] == pytest.approx(0.1)
    assert row["high"] - row["difference"] == pytest.approx(4.302653 * 0.1 / np.sqrt(3), abs=1e-5)
    assert row["gain_pct"] == pytest.approx(25.0)


def test_a_seed_that_one_arm_lacks_is_left_out_of_the_pair() -> None:
    made = results(grpo=[0.2, 0.4, 0.9], drpo=[0.3, 0.5, np.nan])
    row = comparison_table(study("grpo", "drpo"), made, NO_BOOTSTRAP).iloc[0]
    assert row["seeds"] == 2
    assert (row["baseline_mean"], row["difference"]) == pytest.approx((0.3, 0.1))


def test_rare_domains_are_the_third_with_fewest_rows() -> None:
    counts = pd.Series(
        {"ct": 50, "ecg": 2, "mri": 9, "fundus": 7, "pathology": 30, "mammography": 8}
    )
    assert rare_domains(counts) == ["fundus", "ecg"]
    assert rare_domains(pd.Series({"ct": 5})) == ["ct"]


def test_rare_and_common_are_means_of_their_domains() -> None:
    part = {"exact_match": 0.0, "invalid_rate": 0.0, "n": 10}
    domains = {
        name: part | {"macro_f1": f1} for name, f1 in zip("abc", (0.1, 0.5, 0.7), strict=True)
    }
    table = pd.DataFrame(score_records({"overall": part, "domains": domains}, rare=["a"]))
    f1 = table[table["metric"] == "macro_f1"].set_index("domain")
    assert f1["value"][["rare", "common", "rare minus common"]].tolist() == pytest.approx(
        [0.1, 0.6, -0.5]
    )
    assert f1["n"][["rare", "common"]].tolist() == [10, 20]


def test_redrawn_macro_f1_is_that_of_the_metrics() -> None:
    table = answered(predictions(0))
    rows = table[table["dataset"] == "mri"].reset_index(drop=True)
    times = np.random.default_rng(1).multinomial(len(rows), [1 / len(rows)] * len(rows), size=3)
    scores = weighted_macro_f1(rows, times.astype(float))
    for weights, score in zip(times, scores, strict=True):
        repeated = joined([rows.loc[rows.index.repeat(weights)]])
        assert score == pytest.approx(evaluate(repeated)["overall"]["macro_f1"])


def test_arms_are_redrawn_with_the_same_patients() -> None:
    table = predictions(0)
    times = redrawn([table], draws=50, seed=0)
    draws = PatientDraws({"one": table, "two": table[::-1]}, times)
    one, two = draws.macro_f1("one"), draws.macro_f1("two")
    assert set(one) == {"ct", "mri", "overall"}
    assert all((one[name] == two[name]).all() for name in one)
    assert one["overall"].std() > 0
    assert one["overall"].mean() == pytest.approx(
        evaluate(table)["overall"]["macro_f1"], abs=4 * one["overall"].std()
    )


def test_the_bootstrap_spans_seeds_and_patients() -> None:
    rng = np.random.default_rng(0)
    calm = over_seeds([np.full(500, 0.1), np.full(500, 0.1)], seed=0)
    assert calm == pytest.approx((0.1, 0.1))
    seeds_only = over_seeds([np.full(500, 0.0), np.full(500, 0.2)], seed=0)
    assert seeds_only == pytest.approx((0.0, 0.2))
    noisy = over_seeds([0.1 + 0.05 * rng.standard_normal(2000) for _ in range(4)], seed=0)
    half = 1.96 * 0.05 / 2
    assert noisy == pytest.approx((0.1 - half, 0.1 + half), abs=0.006)
    assert np.isnan(over_seeds([np.zeros(10)], seed=0)).all()


def test_seeds_with_the_same_patients_share_their_draws() -> None:
    one, two = predictions(0, patients=12), predictions(1, patients=9)
    times = redrawn([one, two], draws=200, seed=0)
    assert set(times) == {"mri", "ct", "ct2"}
    assert all((table.sum() == len(table)).all() for table in times.values())
    scores = [PatientDraws({"arm": part}, times).macro_f1("arm")["overall"] for part in (one, two)]
    assert np.isfinite(scores).mean() > 0.5
    chance = 0.05 * np.random.default_rng(0).standard_normal(2000)
    alone = over_seeds([chance] * 4, seed=0)
    shared = over_seeds([chance] * 4, seed=0, same_patients=True)
    assert shared[1] - shared[0] == pytest.approx(2 * (alone[1] - alone[0]), rel=0.1)


def test_with_shared_patients_a_difference_has_the_wider_interval() -> None:
    plan = study("grpo", "drpo")
    table = results(grpo=[0.4, 0.5, 0.6], drpo=[0.5, 0.6, 0.701])
    drawn = {"decoding": "greedy", "baseline": "grpo", "arm": "drpo", "domain": "overall"}
    drawn |= {"metric": "macro_f1", "patients_low": -0.1, "patients_high": 0.1003}
    kit = plan.model_copy(update={"data": plan.data.model_copy(update={"source": "kit"})})
    own = comparison_table(plan, table, pd.DataFrame([drawn])).iloc[0]
    wide = comparison_table(kit, table, pd.DataFrame([drawn])).iloc[0]
    assert own["low"] > 0.09
    assert wide["low"] == -0.1 and wide["high"] == own["high"]
