"""DRPO's K-means clusters, and parity of the released preset with the released code."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drpo_calls import drpo, drpo_as
from hypothesis import given
from hypothesis import strategies as st

from qoq_lib.training.drpo import (
    PAPER,
    PRESETS,
    DomainStatistics,
    DrpoConfig,
    cluster_vectors,
    compute_advantages,
)

GRID = [0.0, 0.25, 0.5, 0.75, 1.0]
# Advantages computed by the public code of arXiv 2506.00711; its "about" says how.
FIXTURE = Path(__file__).parent / "fixtures" / "drpo_released_code.json"
CASES = json.loads(FIXTURE.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_released_gives_the_advantages_of_the_released_code(case: dict) -> None:
    config = PRESETS["released"]
    statistics = DomainStatistics(config)
    for step in case["steps"]:
        result = compute_advantages(np.array(step["rewards"]), step["domains"], config, statistics)
        assert result.advantages == pytest.approx(np.array(step["advantages"]), abs=1e-4, rel=0)


def test_released_is_finite_where_the_released_code_is_not() -> None:
    result = drpo([[0.0, 0, 0], [1, 0, 1], [1, 1, 0]], ["ct", "mri", "mri"], "released")
    assert np.isfinite(result.advantages).all() and result.advantages[1:].all()


def test_released_lets_a_negative_cluster_flip_the_sign() -> None:
    result = drpo([[-1.0, -0.5], [0.5, 1.0]], ["ct", "mri"], "released")
    assert result.weights[0] < 0 < result.weights[1]


def test_the_released_means_by_hand() -> None:
    config = replace(PAPER, domain_mean="clusters")
    result = drpo_as(config, [[0.0, 0.2]] * 3 + [[0.8, 1.0]], ["ct"] * 4)
    mean = (0.1 / 3 + 0.9 / 1) / (1 / 3 + 1 / 1)
    assert result.domain_temperatures["ct"] == pytest.approx(2 * mean)
    assert result.clusters.tolist() == [0, 0, 0, 1]


@given(
    st.lists(st.sampled_from(GRID), min_size=1, max_size=30),
    st.integers(1, 10),
    st.sampled_from(sorted(PRESETS)),
)
def test_clusters_are_numbered_from_hard_to_easy(
    means: list[float], k_max: int, preset: str
) -> None:
    config = replace(PRESETS[preset], k_max=k_max)
    labels, centres = cluster_vectors(np.array(means)[:, None], config)
    assert (np.diff(centres.mean(axis=1)) >= 0).all() and len(centres) == labels.max() + 1
    assert set(labels) == set(range(len(set(labels)))) and len(set(labels)) <= k_max
    order = np.argsort(means, kind="stable")
    assert (np.diff(labels[order]) >= 0).all()


def clusters(vectors: np.ndarray, config: DrpoConfig = PAPER) -> list[int]:
    return cluster_vectors(vectors, config)[0].tolist()


def test_few_good_questions_stand_apart_from_many_hopeless_ones() -> None:
    vectors = np.repeat([[0.0] * 4, [0.5] * 4, [1.0] * 4], [30, 1, 1], axis=0)
    assert clusters(vectors) == [0] * 30 + [1, 2]


def test_the_elbow_stops_at_the_clusters_there_are() -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (40, 5))
    vectors = np.repeat([0.9, 0.2], 20)[:, None] + noise
    assert clusters(vectors) == clusters(vectors, PRESETS["released"]) == [1] * 20 + [0] * 20


@pytest.mark.parametrize(("tau", "expected"), [(0.19, 3), (0.21, 2)])
def test_the_elbow_compares_a_drop_with_the_one_before(tau: float, expected: int) -> None:
    # Inertias of k = 1, 2, 3: 1.2, 0.2 and 0, so D_2 = 1 and D_3 = 0.2.
    pair = np.sqrt(0.4)  # two points this far apart have an inertia of 0.2
    far = np.sqrt(1.5)  # 2 x 1 / 3 of its square is what splitting off the third point gains
    points = np.array([[0.0], [pair], [pair / 2 + far]])
    assert len(set(clusters(points, replace(PAPER, tau=tau)))) == expected


def test_equal_questions_stay_one_cluster() -> None:
    assert not any(clusters(np.full((20, 5), 0.4)))
