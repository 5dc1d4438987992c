"""DRPO: the paper's equations by hand, and properties that must hold whatever the rewards."""

import json
from dataclasses import replace

import numpy as np
import pytest
from drpo_calls import drpo, drpo_as
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qoq_lib.domains import DOMAIN_NAMES
from qoq_lib.training.drpo import (
    PAPER,
    PRESETS,
    RECOMMENDED,
    DomainStatistics,
    DrpoConfig,
    compute_advantages,
    kl_damping,
)

GRID = [0.0, 0.25, 0.5, 0.75, 1.0]  # exact in binary: sums do not depend on their order
presets = st.sampled_from(sorted(PRESETS))


@st.composite
def batches(draw: st.DrawFn, values: st.SearchStrategy[float]) -> tuple[np.ndarray, list[str]]:
    questions, rollouts = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    rewards = draw(arrays.arrays(float, (questions, rollouts), elements=values))
    domains = draw(
        st.lists(st.sampled_from(DOMAIN_NAMES[:4]), min_size=questions, max_size=questions)
    )
    return rewards, domains


odd = [np.nan, np.inf, -np.inf, 0.0, 1.0, -1.0, 1e308, -1e308, 1e-308]
wild = batches(st.floats(-1e3, 1e3) | st.sampled_from(odd))
mild = batches(st.sampled_from(GRID))
ZEROS, ONES = (np.zeros((3, 4)), ["ct"] * 3), (np.ones((3, 4)), ["ct", "ecg", "mri"])
HOPELESS = (np.array([[0.0, 0, 0], [1, 0, 1], [1, 1, 0]]), ["ct", "mri", "mri"])


def test_the_paper_by_hand() -> None:
    result = drpo([[1, 0], [1, 1], [1, 0]], ["ct", "ct", "ecg"])
    assert result.domain_temperatures == pytest.approx({"ct": np.sqrt(2) * 0.75, "ecg": 0.5})
    assert result.clusters.tolist() == [0, 1, 0]
    assert result.cluster_temperatures == pytest.approx([0.5, 1.0, 0.5])
    assert result.weights == pytest.approx([1.885618, 0.942809, 4.0])
    spread = np.sqrt((2 * 1.885618**2 + 2 * 4.0**2) / 6)
    first, last = 1.885618 / spread, 4.0 / spread
    expected = np.array([[first, -first], [0, 0], [last, -last]])
    assert result.advantages == pytest.approx(expected, rel=1e-5)


def test_temperatures_grow_with_the_root_of_the_count() -> None:
    result = drpo([[0.5, 0.25]] * 9 + [[0.5, 0.25]], ["ct"] * 9 + ["ecg"])
    assert result.domain_temperatures == pytest.approx({"ct": 3 * 0.375, "ecg": 0.375})
    assert result.weights[-1] / result.weights[0] == pytest.approx(9)  # sqrt(9) twice: T_g and T_c


@given(wild, presets)
@example(ZEROS, "released")
@example(ONES, "released")
@example(HOPELESS, "released")
@example(ZEROS, "recommended")
@example(ONES, "recommended")
@example(HOPELESS, "recommended")
@example((np.array([[0.5]]), ["ct"]), "recommended")
@example((np.array([[-1.0, -0.5], [-0.25, 1.0]]), ["ct", "ct"]), "recommended")
@example((np.array([[0.5]]), ["ct"]), "released")
@example((np.array([[-1.0, 1.0]]), ["ct"]), "released")
@example(ZEROS, "paper")
@example(ONES, "paper")
@example(HOPELESS, "paper")
@example((np.full((2, 3), np.nan), ["ct", "ecg"]), "recommended")
@example((np.array([[np.nan, 1.0, 0.0]]), ["ct"]), "paper")
def test_always_finite_with_mean_zero_and_unit_spread(
    batch: tuple[np.ndarray, list[str]], preset: str
) -> None:
    rewards, domains = batch
    result = drpo(rewards, domains, preset)
    assert result.advantages.shape == rewards.shape
    assert np.isfinite(result.advantages).all() and np.isfinite(result.weights).all()
    assert (result.advantages[~np.isfinite(rewards)] == 0).all()
    assert np.abs(result.advantages.mean(axis=1)).max() < 1e-6
    known = np.where(np.isfinite(rewards), rewards, np.nan)
    known = np.clip(known, -1e6, 1e6)  # as rewards are
    spreads = [np.ptp(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in known]
    if max(spreads) > 1e-3 and preset != "released":  # which adds to the deviation it divides by
        assert result.advantages.std() == pytest.approx(1)
    if max(spreads) == 0:
        assert not result.advantages.any()


@given(wild, presets, st.data())
@example(HOPELESS, "paper", None)
def test_no_kl_makes_a_nan(
    batch: tuple[np.ndarray, list[str]], preset: str, data: st.DataObject | None
) -> None:
    rewards, domains = batch
    elements = st.floats(width=64)
    kl = (
        np.full(rewards.shape, np.inf)
        if data is None
        else data.draw(arrays.arrays(float, rewards.shape, elements=elements))
    )
    assert np.isfinite(drpo(rewards, domains, preset, kl).advantages).all()


def test_a_hopeless_question_does_not_silence_the_batch() -> None:
    result = drpo(*HOPELESS)
    assert not result.advantages[0].any()
    assert (np.sign(result.advantages[1:]) == [[1, -1, 1], [1, 1, -1]]).all()


@given(mild, st.integers(0, 2**32))
def test_the_order_of_rollouts_cannot_matter_when_recommended(
    batch: tuple[np.ndarray, list[str]], seed: int
) -> None:
    rewards, domains = batch
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(rewards.shape[1]), (len(rewards), 1)), axis=1)
    plain = drpo(rewards, domains, "recommended")
    moved = drpo(np.take_along_axis(rewards, order, 1), domains, "recommended")
    assert moved.advantages == pytest.approx(np.take_along_axis(plain.advantages, order, 1))
    assert moved.clusters.tolist() == plain.clusters.tolist()


@given(st.integers(0, 2**32), st.sampled_from(["paper", "recommended"]))
@example(4117, "recommended")  # a gain of exactly tau
def test_the_order_of_questions_cannot_matter(seed: int, preset: str) -> None:
    rng = np.random.default_rng(seed)
    rewards = rng.choice(GRID, (40, 4), p=rng.dirichlet([0.5] * 5))
    domains = rng.choice(["ct", "ecg", "mri"], 40, p=[0.6, 0.3, 0.1])
    order = rng.permutation(40)
    plain = drpo(rewards, domains.tolist(), preset)
    moved = drpo(rewards[order], domains[order].tolist(), preset)
    assert moved.advantages == pytest.approx(plain.advantages[order])
    assert moved.clusters.tolist() == plain.clusters[order].tolist()


@given(st.lists(st.sampled_from(GRID[1:]), min_size=2, max_size=5), st.integers(1, 5), presets)
def test_the_rarer_domain_weighs_more(vector: list[float], rare: int, preset: str) -> None:
    common = rare + 3
    result = drpo([vector] * (common + rare), ["ct"] * common + ["ecg"] * rare, preset)
    assert result.weights[-1] > result.weights[0]


@given(st.integers(1, 6), presets)
def test_the_harder_cluster_weighs_more(size: int, preset: str) -> None:
    hard, easy = [[0.25, 0.0, 0.25, 0.25]] * size, [[1.0, 0.75, 1.0, 1.0]] * size
    result = drpo([*easy, *hard], ["ct"] * 2 * size, preset)
    assert result.clusters.tolist() == [1] * size + [0] * size
    assert result.weights[-1] > result.weights[0]


@given(mild, st.data())
def test_kl_damping_only_shrinks_what_is_pushed_away(
    batch: tuple[np.ndarray, list[str]], data: st.DataObject
) -> None:
    scaled = batch[0] - 0.5
    kl = data.draw(arrays.arrays(float, scaled.shape, elements=st.floats(0, 100)))
    damping = kl_damping(scaled, kl)
    assert (damping > 0).all() and (damping <= 1).all()
    assert (damping[scaled <= 0] == 1).all()


def test_kl_damping_by_hand_and_its_absence() -> None:
    scaled, kl = np.array([[1.0, -1.0], [2.0, -2.0]]), np.array([[0.5, 0.5], [1.0, 0.0]])
    threshold = 1.75  # 75th percentile of the pulls 1 and 2
    expected = [[threshold / (threshold + 1), 1], [threshold / (threshold + 2), 1]]
    assert kl_damping(scaled, kl) == pytest.approx(np.array(expected))
    rewards, domains = [[1, 0], [0.5, 0]], ["ct", "ecg"]
    still = drpo(rewards, domains, kl=np.zeros((2, 2)))
    assert (still.advantages == drpo(rewards, domains).advantages).all()


@settings(max_examples=25)
@given(st.lists(mild, min_size=2, max_size=4))
def test_a_restored_state_goes_on_the_same(steps: list[tuple[np.ndarray, list[str]]]) -> None:
    config = replace(PRESETS["recommended"], window=8)
    first = DomainStatistics(config)
    for rewards, domains in steps[:-1]:
        compute_advantages(rewards, domains, config, first)
    second = DomainStatistics(config)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    results = [compute_advantages(*steps[-1], config, state) for state in (first, second)]
    assert (results[0].advantages == results[1].advantages).all()
    assert (results[0].weights == results[1].weights).all()
    assert first.state_dict() == second.state_dict()


def test_the_window_is_bounded_and_shared_by_later_batches() -> None:
    config = DrpoConfig(window=10)
    statistics = DomainStatistics(config)
    rewards = np.tile([0.5, 0.25], (4, 1))
    for step in range(5):
        result = compute_advantages(rewards, ["ct"] * 4, config, statistics)
        seen = min(4 * step, 10) + 4
        assert result.domain_temperatures["ct"] == pytest.approx(np.sqrt(seen) * 0.375)
    assert len(statistics.state_dict()["seen"]) == 10
    assert statistics.past("ct", 2).shape == (10, 2)
    assert statistics.past("ct", 3).shape == (0, 3)
    assert statistics.past("ecg", 2).shape == (0, 2)


def test_the_paper_keeps_nothing() -> None:
    config = PRESETS["paper"]
    statistics = DomainStatistics(config)
    compute_advantages(np.eye(2), ["ct", "ct"], config, statistics)
    assert statistics.state_dict() == {"seen": [], "counts": {"ct": 2}}


def test_a_question_without_any_score_counts_nowhere() -> None:
    unscored = [np.nan, np.nan]
    with_it, without = DomainStatistics(RECOMMENDED), DomainStatistics(RECOMMENDED)
    rewards = np.array([[0.5, 1.0], unscored, [0.25, 0.0], unscored])
    result = compute_advantages(rewards, ["ct", "ct", "ecg", "mri"], RECOMMENDED, with_it)
    kept = compute_advantages(rewards[::2], ["ct", "ecg"], RECOMMENDED, without)
    assert result.domain_temperatures == kept.domain_temperatures
    assert with_it.state_dict() == without.state_dict()
    assert result.weights[::2] == pytest.approx(kept.weights)
    assert result.clusters.tolist() == [0, -1, 0, -1]
    assert result.degenerate == {"unscored": 2, "constant": 0, "alone": 2}


def test_difficulty_is_relative_to_what_a_row_can_earn() -> None:
    rewards, domains = [[0.4, 0.8], [0.5, 1.0]], ["ct", "ecg"]  # equally good, the first unmarked
    result = drpo_as(RECOMMENDED, rewards, domains, attainable=np.array([0.8, 1.0]))
    assert result.weights[0] == pytest.approx(result.weights[1])
    assert result.domain_temperatures == pytest.approx({"ct": 0.75, "ecg": 0.75})
    as_printed = drpo_as(PAPER, rewards, domains, attainable=np.array([0.8, 1.0]))
    assert as_printed.weights[0] > as_printed.weights[1]


@pytest.mark.parametrize("attainable", [[1.0], [1.0, 0.0], [1.0, np.nan], [1.0, -1.0]])
def test_a_bad_attainable_reward_is_refused(attainable: list[float]) -> None:
    with pytest.raises(ValueError, match="attainable must be 2 positive numbers"):
        drpo_as(RECOMMENDED, np.eye(2), ["ct", "ct"], attainable=np.array(attainable))


def test_constant_and_lone_questions_are_counted() -> None:
    result = drpo([[1, 1], [0, 0], [0, 1], [1, 0]], ["ct", "ct", "mri", "ecg"], "recommended")
    assert result.degenerate == {"unscored": 0, "constant": 2, "alone": 2}
    assert not result.advantages[:2].any() and result.advantages[2:].all()


def test_ablations_leave_out_what_they_name() -> None:
    rewards, domains = [[0.5, 0.25], [0.5, 1.0], [0.75, 0.5]], ["ct", "ct", "ecg"]
    both = drpo_as(PAPER, rewards, domains)
    domain_only = drpo_as(replace(PAPER, by_cluster=False), rewards, domains)
    cluster_only = drpo_as(replace(PAPER, by_domain=False), rewards, domains)
    assert both.weights == pytest.approx(domain_only.weights * cluster_only.weights)
    assert domain_only.weights[0] == domain_only.weights[1]
    assert cluster_only.weights == pytest.approx(1 / both.cluster_temperatures)
    kl = np.array([[3.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    no_kl = replace(PAPER, kl_damping=False)
    assert (drpo_as(no_kl, rewards, domains, kl=kl).advantages == both.advantages).all()
    assert (drpo_as(PAPER, rewards, domains, kl=kl).advantages != both.advantages).any()
    assert drpo_as(replace(PAPER, k_max=1), rewards, domains).clusters.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("rewards", "domains"),
    [
        (np.zeros(3), ["ct"] * 3),
        (np.zeros((2, 3)), ["ct"]),
        (np.zeros((2, 3, 1)), ["ct"] * 2),
        (np.zeros((0, 3)), []),
        (np.zeros((2, 0)), ["ct"] * 2),
    ],
)
def test_wrong_shapes_are_refused(rewards: np.ndarray, domains: list[str]) -> None:
    with pytest.raises(ValueError, match="rewards must be questions x rollouts, one domain"):
        drpo(rewards, domains)


@pytest.mark.parametrize("shape", [(2,), (1, 3), (3, 2)])
def test_a_kl_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"kl must have the shape of rewards, \(2, 3\), got"):
        drpo(np.eye(2, 3), ["ct", "ct"], kl=np.zeros(shape))
