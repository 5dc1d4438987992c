"""Advantage estimators: each formula by hand, and what all of them promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qoq_lib.training.drpo import PRESETS, Advantages, DomainStatistics, compute_advantages
from qoq_lib.training.estimators import ESTIMATORS, NEED_GREEDY, Rewards, of_rollouts

NAMES = sorted(ESTIMATORS)
MEAN_ZERO = [name for name in NAMES if name not in {"remax", "reinforce_pp", "gdpo"}]
ONE_QUESTION = [[0.0, 0.5, 1.0, 0.5]]


def rewards_of(total: object, **more: object) -> Rewards:
    return Rewards(np.array(total, dtype=float)[:, :, None], np.ones(1), **more)


def estimate(name: str, rewards: Rewards, domains: list[str] | None = None) -> Advantages:
    state = DomainStatistics(PRESETS["recommended"])
    return ESTIMATORS[name](rewards, domains or ["ct"] * len(rewards.components), state)


def close(values: object) -> object:
    return pytest.approx(np.array(values), rel=1e-3, abs=1e-12)


def test_by_hand() -> None:
    rewards = rewards_of(ONE_QUESTION, greedy=np.array([0.25]))
    deviation = np.sqrt(0.5 / 3)
    expected = {
        "grpo": [[-0.5 / deviation, 0, 0.5 / deviation, 0]],
        "centred": [[-0.5, 0, 0.5, 0]],
        "rloo": [[-2 / 3, 0, 2 / 3, 0]],
        "reinforce_pp": [[-0.5 / deviation, 0, 0.5 / deviation, 0]],
        "remax": [[-0.25, 0.25, 0.75, 0.25]],
    }
    for name, values in expected.items():
        assert estimate(name, rewards).advantages == close(values), name


def test_rloo_takes_the_mean_of_the_others() -> None:
    result = estimate("rloo", rewards_of([[0.1, 0.4, 0.7]]))
    assert result.advantages == close([[0.1 - 0.55, 0.4 - 0.4, 0.7 - 0.25]])


def test_reinforce_pp_has_one_baseline_for_the_batch() -> None:
    result = estimate("reinforce_pp", rewards_of([[0.0, 0.0], [1.0, 1.0]]))
    deviation = np.sqrt(1 / 3)
    assert result.advantages == close([[-0.5 / deviation] * 2, [0.5 / deviation] * 2])


def test_gdpo_normalises_each_component_before_the_sum() -> None:
    # Equal sums, which GRPO cannot tell apart: the rare success weighs more than the common one.
    components = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]])
    rewards = Rewards(components, np.array([1.0, 2.0]))
    scores = np.array([1.5, -0.5, -0.5, -0.5])  # both components have these scores, signs apart
    summed = scores * 1.0 - scores * 2.0
    result = estimate("gdpo", rewards)
    assert result.advantages == close([summed / summed.std(ddof=1)])
    equal = Rewards(components, np.ones(2))
    assert not estimate("grpo", equal).advantages.any()


def test_disco_weighs_rare_domains_and_inconsistent_questions() -> None:
    rewards = rewards_of([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.5]])
    result = estimate("disco", rewards, ["ct", "ct", "ct", "ecg"])
    common, rare = np.log(1 + 4 / 3) / 0.5, np.log(1 + 4) / 0.25
    assert result.weights == close([common, common, common, rare])
    assert result.advantages[0] == close([-0.5 * common, 0.5 * common])
    assert result.advantages[3] == close([-0.25 * rare, 0.25 * rare])


def test_disco_counts_domains_over_the_whole_run() -> None:
    state, rewards = DomainStatistics(PRESETS["recommended"]), rewards_of([[0.0, 1.0]] * 2)
    ESTIMATORS["disco"](rewards, ["ct", "ct"], state)
    result = ESTIMATORS["disco"](rewards, ["ct", "ecg"], state)
    assert result.weights == close([np.log(1 + 4 / 3) / 0.5, np.log(1 + 4) / 0.5])


def test_drpo_is_compute_advantages_with_all_that_is_known() -> None:
    rng = np.random.default_rng(0)
    components, kl = rng.random((6, 4, 2)), rng.random((6, 4))
    weights, attainable = np.array([0.7, 0.3]), rng.uniform(0.5, 1.0, 6)
    domains = ["ct", "ct", "ecg", "ct", "mri", "ecg"]
    config = PRESETS["recommended"]
    direct = compute_advantages(
        components @ weights, domains, config, DomainStatistics(config), kl, attainable
    )
    result = estimate("drpo", Rewards(components, weights, attainable, None, kl), domains)
    assert result.advantages == pytest.approx(direct.advantages)


@pytest.mark.parametrize("name", NAMES)
@given(
    total=arrays.arrays(
        float,
        st.tuples(st.integers(1, 5), st.integers(1, 4)),
        elements=st.sampled_from([np.nan, 0.0, 0.25, 1.0, -1.0, 0.6]),
    )
)
def test_always_finite_and_zero_without_a_reward(name: str, total: np.ndarray) -> None:
    greedy = np.zeros(len(total)) if name in NEED_GREEDY else None
    result = estimate(name, rewards_of(total, greedy=greedy))
    assert result.advantages.shape == total.shape
    assert np.isfinite(result.advantages).all() and np.isfinite(result.weights).all()
    assert not result.advantages[np.isnan(total)].any()
    assert result.weights.shape == result.clusters.shape == (len(total),)
    if name in MEAN_ZERO:
        scale = max(np.abs(result.advantages).max(), 1.0)
        assert np.abs(result.advantages.mean(axis=1)).max() < 1e-6 * scale


@pytest.mark.parametrize("name", NAMES)
def test_permuting_rollouts_or_questions_permutes_the_advantages(name: str) -> None:
    rng = np.random.default_rng(1)
    total, greedy = rng.choice([0.0, 0.25, 0.5, 1.0], (9, 4)), rng.random(9)
    domains = rng.choice(["ct", "ecg", "mri"], 9).tolist()
    plain = estimate(name, rewards_of(total, greedy=greedy), domains).advantages
    order, turn = rng.permutation(9), rng.permutation(4)
    moved = rewards_of(total[order][:, turn], greedy=greedy[order])
    result = estimate(name, moved, [domains[place] for place in order])
    assert result.advantages == pytest.approx(plain[order][:, turn])


def test_remax_without_a_greedy_completion_says_so() -> None:
    with pytest.raises(ValueError, match="ReMax needs Rewards.greedy"):
        estimate("remax", rewards_of(ONE_QUESTION))


def test_a_silent_function_is_left_out_of_the_total() -> None:
    components = np.array([[[1.0, np.nan], [np.nan, np.nan], [0.5, 1.0]]])
    total = Rewards(components, np.array([0.6, 0.4])).total
    assert total[0, [0, 2]] == pytest.approx([0.6, 0.7]) and np.isnan(total[0, 1])


def test_a_list_of_rollouts_is_the_table_in_another_order() -> None:
    table = np.array([[0.0, 0.5, 1.0], [0.2, 0.2, 0.9], [0.0, 0.0, 1.0]])
    domains = {"a": "ct", "b": "ecg", "c": "ct"}
    expected = estimate("drpo", rewards_of(table), list(domains.values())).advantages
    order = np.random.default_rng(0).permutation(9)
    questions = [list(domains)[place // 3] for place in order]
    state = DomainStatistics(PRESETS["recommended"])
    found = of_rollouts("drpo", table.reshape(-1)[order], questions, domains, state)
    assert found[np.argsort(order)].reshape(3, 3) == close(expected)
    assert state.counts == {"ct": 2, "ecg": 1}


def test_groups_of_other_sizes_and_rollouts_of_no_question() -> None:
    state = DomainStatistics(PRESETS["recommended"])
    rewards, questions = np.array([0.0, 9.0, 1.0, 0.4]), ["a", "padding", "a", "b"]
    found = of_rollouts("centred", rewards, questions, {"a": "ct", "b": "ct"}, state)
    assert found == close([-0.5, 0.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="None of the batch's questions has a domain"):
        of_rollouts("centred", rewards, questions, {}, state)
