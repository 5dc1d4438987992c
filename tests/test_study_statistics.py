"""The intervals of a study, against numbers worked out by hand and against scipy."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fictions import joined
from scipy import stats

from qoq_lib.evaluation.metrics import answered, evaluate
from qoq_lib.evaluation.study import comparing
from qoq_lib.evaluation.study.comparing import bootstrap, comparison_table
from qoq_lib.evaluation.study.config import Study
from qoq_lib.evaluation.study.running import BOX_METRICS, METRICS
from qoq_lib.evaluation.study.scoring import rare_domains, score_records
from qoq_lib.evaluation.study.statistics import (
    PatientDraws,
    dataset_scores,
    drawn_means,
    ends,
    mean_interval,
    ratio_interval,
    redrawn,
)

NO_BOOTSTRAP = pd.DataFrame(columns=[*comparing.KEYS, *comparing.ENDS])


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


def answers_of(folder: Path, without: dict[int, str]) -> list[Any]:
    """Finished runs of two arms, three seeds; ``without``: a domain that the seed's test lacks."""
    runs = []
    for seed in (0, 1, 2):
        for arm in ("grpo", "drpo"):
            made, path = predictions(seed), folder / f"{seed}-{arm}.parquet"
            made[made["domain"] != without.get(seed)].to_parquet(path)
            runs.append(
                SimpleNamespace(
                    arm=SimpleNamespace(name=arm),
                    start=SimpleNamespace(seed=seed),
                    finished=lambda split: True,
                    predictions=lambda split, decoding, path=path: path,
                )
            )
    return runs


def located(table: pd.DataFrame) -> pd.DataFrame:
    """The same with a lesion in each image and a box in each answer, some of them in place."""
    boxes = [[[0.0, 0.0, 10.0, 10.0]]] * len(table)
    said = [f'```json\\n[{{"bbox_2d": [0, 0, {5 + n % 9}, 10]}}]\\n``` ' for n in range(len(table))]
    return table.assign(boxes=boxes, completion=said + table["completion"])


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_domain_that_a_seed_lacks_is_redrawn_in_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    monkeypatch.setattr(comparing, "DRAWS", 20)
    monkeypatch.setattr(comparing, "domain_rows", lambda _: pd.Series({"mri": 5.0, "ct": 9.0}))
    table = bootstrap(study("grpo", "drpo"), answers_of(tmp_path, {lacking: "mri"}), seed=0)
    assert set(table["domain"]) == {"ct", "mri", "overall", "rare", "common", "rare minus common"}
    assert table["patients_low"].notna().all()


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


def test_redrawn_scores_are_those_of_the_metrics() -> None:
    table = answered(located(predictions(0)))
    rows = table[table["dataset"] == "mri"].reset_index(drop=True)
    times = redrawn([rows], draws=3, seed=1)["mri"]
    scores = dataset_scores(rows, times)
    assert set(scores) == {*METRICS, *BOX_METRICS, "all_options"}
    for draw in times:
        repeats = times.loc[rows["patient_id"], draw].astype(int)
        repeated = joined([rows.loc[rows.index.repeat(repeats)]])
        told = evaluate(repeated, resamples=0)["overall"]
        told["all_options"] = told["floors"]["all_options"]
        assert {name: values[draw] for name, values in scores.items()} == pytest.approx(
            {name: told[name] for name in scores}
        )


def test_arms_are_redrawn_with_the_same_patients() -> None:
    table = predictions(0)
    times = redrawn([table], draws=50, seed=0)
    draws = PatientDraws({"one": table, "two": table[::-1]}, times)
    one, two = (draws.scores(name)["macro_f1"] for name in ("one", "two"))
    assert set(one) == {"ct", "mri", "overall"}
    assert all((one[name] == two[name]).all() for name in one)
    assert one["overall"].std() > 0
    assert one["overall"].mean() == pytest.approx(
        evaluate(table)["overall"]["macro_f1"], abs=4 * one["overall"].std()
    )


def test_grounding_is_left_out_of_macro_f1_as_in_the_metrics() -> None:
    table = predictions(0)
    where = predictions(1).assign(dataset="where", options=[["lesion"]] * 90)
    where = where.assign(answers=where["options"], completion="\\boxed{lesion}")
    where["id"] = "where/" + where["id"]
    found = []
    for asked in (table, pd.concat([table, where], ignore_index=True)):
        times = {
            name: pd.DataFrame(1.0, index=[f"p{n}" for n in range(12)], columns=[0])
            for name in asked["dataset"].unique()
        }
        found.append(PatientDraws({"arm": asked}, times).scores("arm")["macro_f1"])
        overall = evaluate(asked, resamples=0)["overall"]["macro_f1"]
        assert found[-1]["overall"][0] == pytest.approx(overall)
    assert found[0] == found[1]
    assert set(PatientDraws({"arm": where}, times).scores("arm")) == {"exact_match", "invalid_rate"}


def test_the_bootstrap_spans_seeds_and_patients() -> None:
    def over_seeds(*draws: np.ndarray) -> tuple[float, float]:
        return ends(drawn_means(draws, seed=0, same_patients=False))

    rng = np.random.default_rng(0)
    assert over_seeds(np.full(500, 0.1), np.full(500, 0.1)) == pytest.approx((0.1, 0.1))
    assert over_seeds(np.full(500, 0.0), np.full(500, 0.2)) == pytest.approx((0.0, 0.2))
    noisy = over_seeds(*(0.1 + 0.05 * rng.standard_normal(2000) for _ in range(4)))
    half = 1.96 * 0.05 / 2
    assert noisy == pytest.approx((0.1 - half, 0.1 + half), abs=0.006)
    assert np.isnan(over_seeds(np.zeros(10))).all()


def test_seeds_with_the_same_patients_share_their_draws() -> None:
    one, two = predictions(0, patients=12), predictions(1, patients=9)
    times = redrawn([one, two], draws=200, seed=0)
    assert set(times) == {"mri", "ct", "ct2"}
    assert all((table.sum() == len(table)).all() for table in times.values())
    drawn = [PatientDraws({"arm": part}, times).scores("arm") for part in (one, two)]
    assert np.isfinite([scores["macro_f1"]["overall"] for scores in drawn]).mean() > 0.5
    chance = 0.05 * np.random.default_rng(0).standard_normal(2000)
    alone, shared = (
        ends(drawn_means([chance] * 4, seed=0, same_patients=same)) for same in (False, True)
    )
    assert shared[1] - shared[0] == pytest.approx(2 * (alone[1] - alone[0]), rel=0.1)


def on_the_kit(plan: Study) -> Study:
    return plan.model_copy(update={"data": plan.data.model_copy(update={"source": "kit"})})


@pytest.mark.parametrize("metric", ["macro_f1", "penalised_f1", "exact_match", "box_iou"])
def test_with_shared_patients_a_difference_has_the_wider_interval(metric: str) -> None:
    plan = study("grpo", "drpo")
    table = results(grpo=[0.4, 0.5, 0.6], drpo=[0.5, 0.6, 0.701]).assign(metric=metric)
    drawn = {"decoding": "greedy", "baseline": "grpo", "arm": "drpo", "domain": "overall"}
    drawn |= {"metric": metric, "patients_low": -0.1, "patients_high": 0.1003}
    drawn |= {"patients_gain_low": -20.0, "patients_gain_high": 20.0}
    own = comparison_table(plan, table, pd.DataFrame([drawn])).iloc[0]
    wide = comparison_table(on_the_kit(plan), table, pd.DataFrame([drawn])).iloc[0]
    assert own["low"] > 0.09 and own["gain_low"] > 0
    assert wide["low"] == -0.1 and wide["high"] == own["high"]
    assert wide["gain_low"] == -20 and wide["gain_high"] == own["gain_high"] > 20


def test_every_claimed_score_is_redrawn_and_the_floor_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "DRAWS", 50)
    monkeypatch.setattr(comparing, "domain_rows", lambda _: pd.Series({"mri": 5.0, "ct": 9.0}))
    table = bootstrap(study("grpo", "drpo"), answers_of(tmp_path, {}), seed=0)
    overall = table[table["domain"] == "overall"].set_index(["baseline", "metric"])
    assert set(overall.loc["grpo"].index) == set(METRICS)
    floor = overall.loc[("floor_all_options", "macro_f1")]
    assert set(floor["arm"]) == {"grpo", "drpo"}
    assert (floor["patients_low"] < floor["patients_high"]).all()
