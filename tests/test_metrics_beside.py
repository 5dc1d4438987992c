"""Intervals, log-probabilities, hospital stays, subgroups and paired differences."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fictions import joined
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from qoq_lib.data.sources.multimodal import ENDINGS, STAYS
from qoq_lib.evaluation.metrics import MIN_PATIENTS, PredictionsError, compare, evaluate
from qoq_lib.evaluation.metrics.confidence import auroc, confidences
from qoq_lib.evaluation.metrics.reading import answered
from qoq_lib.evaluation.metrics.resampling import Resampling


def table(true: list[str], said: list[str], options: Any = ("a", "b"), **more: Any) -> pd.DataFrame:
    """A row per answer, each of a patient of its own."""
    rows = {
        "id": [f"x/{number}" for number in range(len(true))],
        "domain": "ct",
        "dataset": "x",
        "patient_id": [f"p{number}" for number in range(len(true))],
        "options": [list(options)] * len(true),
        "answers": [[label] for label in true],
        "completion": [f"\\boxed{{{label}}}" for label in said],
    }
    return pd.DataFrame(rows | more)


def overall(predictions: pd.DataFrame, **options: Any) -> dict[str, Any]:
    return evaluate(predictions, **options)["overall"]


def test_an_interval_is_that_of_independent_patients() -> None:
    half = table(["a"] * 400, ["a", "b"] * 200)
    low, high = overall(half)["intervals"]["exact_match"]
    error = 1.96 * np.sqrt(0.25 / 400)
    assert low == pytest.approx(0.5 - error, abs=0.01)
    assert high == pytest.approx(0.5 + error, abs=0.01)


def test_a_score_lies_in_its_interval_even_where_resamples_are_biased() -> None:
    # Classes of one size: list-all, as good as it gets here, is worse in any resample.
    found = overall(table([*"abcd"] * 12, ["a, b, c, d"] * 48, "abcd"))
    for name in ("macro_f1", "penalised_f1", "all_options"):
        low, high = found["intervals"][name]
        assert low <= found.get(name, found["floors"].get(name)) <= high <= 1


def test_a_domain_of_three_patients_is_in_every_resample() -> None:
    many = table(["a"] * 60, ["a", "b"] * 30)
    few = table(["a"] * 3, ["b"] * 3, domain="ecg", dataset="leads")
    few = few.assign(patient_id="few" + few["patient_id"])
    found = overall(joined([many, few]))
    low, high = found["intervals"]["exact_match"]
    assert found["exact_match"] == 0.25 and 0.15 < low < 0.25 < high < 0.35


def test_each_data_set_keeps_its_number_of_patients() -> None:
    who = {"x": ["a", "b", "c", "d", "e"], "y": ["d", "e", "f"], "z": ["g"]}
    rows = [("ct", name, patient) for name, own in who.items() for patient in own * 2]
    drawn = Resampling(pd.DataFrame(rows, columns=["domain", "dataset", "patient_id"]), 40, seed=0)
    for own in who.values():
        times = drawn.counts[:, drawn.patients.get_indexer(own)]
        assert (times.sum(axis=1) == len(own)).all()
    assert (drawn.counts[0] == 1).all() and (drawn.counts[1:] != 1).any()


def test_more_rows_of_the_same_patients_do_not_narrow_it() -> None:
    few = table(["a"] * 40, ["a", "b"] * 20)
    many = joined([few] * 10)
    wide, narrow = (overall(rows)["intervals"]["macro_f1"] for rows in (few, many))
    assert narrow == pytest.approx(wide)
    assert overall(many)["n"] == 400 and overall(many)["patients"] == 40


def test_too_few_patients_have_no_interval_and_say_so() -> None:
    few = overall(table(["a"] * (MIN_PATIENTS - 1), ["a"] * (MIN_PATIENTS - 1)))
    assert "macro_f1" in few["too_few"] and few["intervals"]["macro_f1"] is None
    enough = overall(table(["a"] * MIN_PATIENTS, ["a"] * MIN_PATIENTS))
    assert enough["too_few"] == []
    bare = overall(table(["a"] * 20, ["a"] * 20), resamples=0)
    assert bare["intervals"]["macro_f1"] is None


def test_where_all_resamples_agree_there_is_no_interval() -> None:
    right, wrong = table(["a"] * 12, ["a"] * 12), table(["a"] * 12, ["b"] * 12)
    assert overall(right)["intervals"]["exact_match"] is None
    assert overall(wrong)["intervals"]["invalid_rate"] is None
    assert compare(wrong, right)["overall"]["intervals"]["exact_match"] is None
    assert compare(right, right)["overall"]["intervals"]["exact_match"] == [0, 0]
    others = right.assign(patient_id="f" + right["patient_id"], sex="F")
    gaps = evaluate(joined([right.assign(sex="M"), others]))["subgroups"]["sex"]["gaps"]
    assert gaps["exact_match"]["value"] == 0 and gaps["exact_match"]["interval"] is None


def test_most_intervals_hold_the_true_share() -> None:
    rng, held = np.random.default_rng(0), []
    for seed in range(100):
        rows = table(["a"] * 50, ["a"] * 50)
        weights = Resampling(rows, 200, seed).weights(rows["patient_id"])
        right = pd.DataFrame({"right": rng.random(50) < 0.8})
        low, high = weights.means(right)["right"].interval or (0.0, 0.0)
        held.append(low <= 0.8 <= high)
    assert 0.87 < np.mean(held) < 1


def test_the_same_seed_gives_the_same_json() -> None:
    predictions = table(["a", "b"] * 20, ["a"] * 40, sex=["F", "M"] * 20)
    first, again, other = (evaluate(predictions, seed=seed) for seed in (1, 1, 2))
    assert json.dumps(first, allow_nan=False) == json.dumps(again)
    assert first["overall"]["intervals"] != other["overall"]["intervals"]


def test_auroc_is_scikit_learns_with_weights_and_ties() -> None:
    random = np.random.default_rng(0)
    scores, positive = random.integers(0, 6, 60).astype(float), random.random(60) < 0.4
    weights = random.integers(0, 4, (5, 60)).astype(float)
    expected = [roc_auc_score(positive, scores, sample_weight=line) for line in weights]
    assert auroc(scores, positive, weights) == pytest.approx(expected)
    assert np.isnan(auroc(scores, np.ones(60, bool), weights)).all()


def test_log_probabilities_by_hand() -> None:
    odds = np.log([[9, 1], [8, 2], [7, 3], [2, 8]])
    sure = table(["a", "a", "b", "b"], ["a"] * 4, option_logprobs=list(odds))
    found = overall(sure)
    assert found["auroc"] == 1.0 and found["rows"]["auroc"] == 4
    assert confidences(sure)["confidence"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.8])
    assert confidences(sure)["hit"].tolist() == [1, 1, 0, 1]
    # bins .7-.8, .8-.9, .9-1: |.7 - 0|, |1.6 - 2| and |.9 - 1|
    assert found["calibration_error"] == pytest.approx((0.7 + 0.4 + 0.1) / 4)
    partly = sure.assign(option_logprobs=[odds[0], None, None, odds[3]])
    assert overall(partly)["rows"]["auroc"] == 2
    assert "auroc" not in overall(sure.drop(columns="option_logprobs"))
    with pytest.raises(PredictionsError, match=r"^Row 'x/0' has 1 option_logprobs for 2 options"):
        evaluate(sure.assign(option_logprobs=[[0.1]] * 4))


def test_length_of_stay_is_ordered_and_silence_is_farthest() -> None:
    true, said = [STAYS[n] for n in (0, 1, 2, 3, 3)], [STAYS[n] for n in (0, 2, 2, 1, 3)]
    found = overall(table(true, said, STAYS))
    assert found["stay_bins_off"] == pytest.approx((0 + 1 + 0 + 2 + 0) / 5)
    expected = cohen_kappa_score([0, 1, 2, 3, 3], [0, 2, 2, 1, 3], weights="quadratic")
    assert found["stay_kappa"] == pytest.approx(expected)
    silent = overall(table(true, ["who knows"] * 5, STAYS[::-1]))
    assert silent["stay_bins_off"] == pytest.approx((3 + 2 + 2 + 3 + 3) / 5)
    assert silent["stay_kappa"] < 0
    assert "stay_kappa" not in overall(table(["a"], ["a"]))


def test_endings_by_hand() -> None:
    died, neither = ENDINGS
    true, said = [died, died, neither, neither], [died, neither, died, "?"]
    found = overall(table(true, said, ENDINGS))
    assert found["ending_f1"] == pytest.approx(0.5)
    assert found["ending_sensitivity"] == 0.5 and found["ending_specificity"] == 0.0


def test_subgroups_and_their_gap() -> None:
    women = table(["a", "b"] * 10, ["a", "b"] * 10, sex="F", age_years=30.0)
    men = table(["a", "b"] * 10, ["a", "a"] * 10, sex="M", age_years=80.0)
    men["patient_id"] = "m" + men["patient_id"]
    unknown = table(["a"], ["b"], sex=None, age_years=np.nan)
    found = evaluate(joined([women, men, unknown]))["subgroups"]
    sex, age = found["sex"], found["age"]
    assert list(sex["groups"]) == ["F", "M"] and list(age["groups"]) == ["18-39", "80+"]
    assert sex["missing"] == age["missing"] == 1
    assert sex["groups"]["M"]["overall"]["exact_match"] == 0.5
    assert sex["groups"]["M"]["domains"]["ct"]["n"] == 20
    gap = sex["gaps"]["exact_match"]
    assert (gap["value"], gap["highest"], gap["lowest"]) == (0.5, "F", "M")
    assert 0 < gap["interval"][0] < 0.5 < gap["interval"][1]
    spelled = women.assign(sex=["female", "M", "F", "O"] * 5)
    assert evaluate(spelled)["subgroups"]["sex"]["missing"] == 10
    few = joined([women, men.head(2)])
    assert evaluate(few)["subgroups"]["sex"]["gaps"] == {}
    assert evaluate(women.drop(columns=["sex", "age_years"]))["subgroups"] == {}


def test_other_data_sets_make_no_gap() -> None:
    """Women mostly have the easy set, men the hard one; in each, both are right equally often."""

    def asked(sex: str, name: str, count: int, said: list[str]) -> pd.DataFrame:
        rows = table(["a", "b"] * (count // 2), (said * count)[:count], sex=sex, dataset=name)
        return rows.assign(patient_id=f"{sex}/{name}/" + rows["id"], id=f"{name}/" + rows["id"])

    easy, hard = ["a", "b"], ["a", "a"]
    parts = [asked("F", "easy", 80, easy), asked("F", "hard", 20, hard)]
    parts += [asked("M", "easy", 20, easy), asked("M", "hard", 80, hard)]
    own = [asked("F", "mammograms", 40, ["b", "a"])]  # of women alone, and all wrong
    sex = evaluate(joined(parts + own))["subgroups"]["sex"]
    assert sex["groups"]["F"]["overall"]["exact_match"] < 0.6
    for gap in sex["gaps"].values():
        assert gap["value"] == 0 and gap["datasets"] == 2
        assert gap["interval"] is None or gap["interval"][0] < 0 < gap["interval"][1]
    worse = [asked("M", "easy", 20, hard), *parts[:2], parts[3]]
    gap = evaluate(joined(worse))["subgroups"]["sex"]["gaps"]["exact_match"]
    assert (gap["value"], gap["highest"], gap["datasets"]) == (pytest.approx(0.25), "F", 2)
    apart = evaluate(joined([parts[0], parts[3]]))["subgroups"]["sex"]
    assert apart["gaps"] == {} and set(apart["groups"]) == {"F", "M"}


def test_a_gap_skips_what_a_group_cannot_tell() -> None:
    women = table(["a", "b"] * 10, ["a", "b"] * 10, sex="F")
    men = women.assign(sex="M", options=[["a"]] * 20, answers=[["a"]] * 20)
    men = men.assign(patient_id="m" + men["patient_id"], id="m" + men["id"])
    gaps = evaluate(pd.concat([women, men]))["subgroups"]["sex"]["gaps"]
    assert set(gaps) == {"exact_match", "invalid_rate"}


def test_a_gain_is_paired() -> None:
    before, after = table(["a"] * 40, ["b"] * 40), table(["a"] * 40, ["a", "b"] * 20)
    gain = compare(before, after)
    assert gain["overall"]["exact_match"] == 0.5 and gain["domains"]["ct"]["exact_match"] == 0.5
    assert gain["overall"]["intervals"] == compare(before, after)["overall"]["intervals"]
    assert gain["overall"]["rows"]["exact_match"] == 40
    none = compare(after, after.iloc[::-1])["overall"]
    assert none["macro_f1"] == 0 and none["intervals"]["macro_f1"] == [0, 0]
    with pytest.raises(PredictionsError, match="do not answer the same questions"):
        compare(before.head(3), after)


def test_a_gain_is_over_the_data_sets_that_both_models_can_tell() -> None:
    ct = table(["a", "b"] * 10, ["a", "b"] * 10)
    ecg = ct.assign(id="e" + ct["id"], patient_id="e" + ct["patient_id"], domain="ecg", dataset="e")
    right, wrong = [[-0.1, -3.0], [-3.0, -0.1]] * 10, [[-3.0, -0.1], [-0.1, -3.0]] * 10
    before = pd.concat([ct.assign(option_logprobs=None), ecg.assign(option_logprobs=right)])
    after = pd.concat([ct.assign(option_logprobs=wrong), ecg.assign(option_logprobs=right)])
    gain = compare(before, after)
    assert "auroc" not in gain["domains"]["ct"] and gain["domains"]["ecg"]["auroc"] == 0
    assert gain["overall"]["auroc"] == 0 and gain["overall"]["rows"]["auroc"] == 20


def test_a_gain_is_over_the_rows_that_both_models_can_tell() -> None:
    whole = table(["a", "b"] * 20, ["a", "b"] * 20)
    right, wrong = [[-0.1, -3.0], [-3.0, -0.1]], [[-3.0, -0.1], [-0.1, -3.0]]
    before = whole.assign(option_logprobs=[*right * 10, *wrong * 10], n_tokens=[3] * 20 + [9] * 20)
    after = whole.assign(
        option_logprobs=[*right * 10, *[None] * 20], n_tokens=[4] * 20 + [np.nan] * 20
    )
    gain = compare(before, after.iloc[::-1])["overall"]
    assert gain["auroc"] == 0 and gain["calibration_error"] == 0 and gain["tokens"] == 1
    assert gain["rows"]["auroc"] == 20 and gain["rows"]["macro_f1"] == 40


@pytest.mark.parametrize("name", ["answers", "options"])
def test_a_pair_of_other_truths_or_options_is_refused(name: str) -> None:
    before = table(["a"] * 20, ["b"] * 20)
    after = before.assign(**{name: [np.array(["b", "c"])] * 20})
    with pytest.raises(PredictionsError, match=rf"another {name} of the question 'x/0', \['a'.*\]"):
        compare(before, after)


@pytest.mark.parametrize("name", ["patient_id", "dataset"])
def test_a_pair_of_other_patients_or_sets_is_refused(name: str) -> None:
    before = table(["a"] * 20, ["b"] * 20)
    after = before.assign(**{name: ["other", *before[name][1:]]})
    with pytest.raises(PredictionsError, match=rf"another {name} of the question 'x/0', '\w+' and"):
        compare(before, after)


def test_a_row_without_a_patient_is_refused() -> None:
    rows = table(["a"] * 12, ["a"] * 12)
    rows["patient_id"] = [None, *rows["patient_id"][1:]]
    with pytest.raises(PredictionsError, match=r"^Row 'x/0' has the patient_id None"):
        evaluate(rows)


def test_rows_tell_what_they_can() -> None:
    rows = answered(table(["a", "b"], ["a", "b"]).assign(n_tokens=[3, 5]))
    assert rows["tokens"].tolist() == [3, 5] and rows["box_iou"].isna().all()
    assert overall(rows)["tokens"] == 4
