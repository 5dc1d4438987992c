"""Advantage estimators: pure functions ``(rewards, domains, state) -> Advantages``, by name.

What is compared in this package differs in how rewards become advantages, and in the loss. Losses
and importance sampling are TRL's, by configuration; advantages are made here, all behind one seam
of the trainer. Every estimator gives 0 to a rollout that no reward function could score.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qoq_lib.training.drpo import (
    EPS,
    Advantages,
    DomainStatistics,
    compute_advantages,
    group_scores,
)

TRL_EPS = 1e-4  # what TRL adds to a standard deviation before it divides by it


@dataclass(frozen=True)
class Rewards:
    """Rewards of one batch: Q questions, R rollouts, K reward functions.

    Attributes:
        components: Q x R x K; NaN where a function has nothing to say.
        weights: K, one per function; ``total`` is the weighted sum.
        attainable: Q, the largest total that a rollout of the question can earn; ``None``: unknown.
        greedy: Q, the total of the question's greedy completion, for estimators that need it.
        kl: Q x R, each rollout's KL to the reference policy, where there is one.
    """

    components: np.ndarray
    weights: np.ndarray
    attainable: np.ndarray | None = None
    greedy: np.ndarray | None = None
    kl: np.ndarray | None = None

    @property
    def total(self) -> np.ndarray:
        """Q x R; NaN where every function is silent."""
        silent = np.isnan(self.components).all(axis=2)
        return np.where(silent, np.nan, np.nansum(self.components * self.weights, axis=2))


Estimator = Callable[[Rewards, Sequence[str], DomainStatistics], Advantages]


def drpo(rewards: Rewards, domains: Sequence[str], state: DomainStatistics) -> Advantages:
    """DRPO (arXiv 2506.00711), configured by ``state.config``."""
    config, total = state.config, rewards.total
    return compute_advantages(total, domains, config, state, rewards.kl, rewards.attainable)


def grpo(rewards: Rewards, domains: Sequence[str], state: DomainStatistics) -> Advantages:
    """GRPO (arXiv 2402.03300): ``(r - mean_q) / std_q``; DAPO and GSPO differ in the loss only."""
    return _plain(_standard(rewards.total, axis=1), rewards)


def centred(rewards: Rewards, domains: Sequence[str], state: DomainStatistics) -> Advantages:
    """Dr. GRPO (arXiv 2503.20783): ``r - mean_q``, no division by the standard deviation."""
    filled = group_scores(rewards.total)[1]
    return _plain(filled - filled.mean(axis=1, keepdims=True), rewards)


def rloo(rewards: Rewards, domains: Sequence[str], state: DomainStatistics) -> Advantages:
    """RLOO (arXiv 2402.14740): r minus the mean of the question's other rollouts."""
    total = rewards.total
    filled = group_scores(total)[1]
    count = np.isfinite(total).sum(axis=1, keepdims=True)
    others = np.maximum(count - 1, 1)
    return _plain((filled - filled.mean(axis=1, keepdims=True)) * count / others, rewards)


def reinforce_pp(rewards: Rewards, domains: Sequence[str], state: DomainStatistics) -> Advantages:
    """REINFORCE++ (arXiv 2501.03262): ``(r - mean) / std`` over the batch, no group baseline."""
    return _plain(_standard(rewards.total), rewards)


def remax(rewards: Rewards, domains: Sequence[str], state: DomainStatistics) -> Advantages:
    """ReMax (arXiv 2310.10505): r minus the reward of the question's greedy completion."""
    if rewards.greedy is None:
        raise ValueError("ReMax needs Rewards.greedy, the reward of each greedy completion.")
    return _plain(rewards.total - rewards.greedy[:, None], rewards)


def gdpo(rewards: Rewards, domains: Sequence[str], state: DomainStatistics) -> Advantages:
    """GDPO (arXiv 2601.05242): GRPO's scores per component, summed by weight, then by batch."""
    scores = np.stack([_standard(part, axis=1) for part in np.moveaxis(rewards.components, 2, 0)])
    summed = np.nansum(scores * rewards.weights[:, None, None], axis=0)
    return _plain(_standard(np.where(np.isfinite(rewards.total), summed, np.nan)), rewards)


def disco(rewards: Rewards, domains: Sequence[str], state: DomainStatistics) -> Advantages:
    """DISCO (arXiv 2505.15074): ``w r - mean_q(w r)`` with ``w = log(1 + 1 / p) / (SC + 1e-5)``.

    p is the domain's share of the questions since the run began, SC the question's mean reward.
    """
    filled = group_scores(rewards.total)[1]
    state.add(domains, filled)
    share = np.array([state.counts[name] for name in domains]) / state.counts.total()
    consistency = np.maximum(filled.mean(axis=1), 0.0)
    weights = np.log1p(1 / share) / (consistency + 1e-5)
    return _plain(
        (filled - filled.mean(axis=1, keepdims=True)) * weights[:, None], rewards, weights
    )


ESTIMATORS: dict[str, Estimator] = {
    function.__name__: function
    for function in (drpo, grpo, centred, rloo, reinforce_pp, remax, gdpo, disco)
}
NEED_GREEDY = frozenset({"remax"})  # the trainer generates a greedy completion per question
NEED_COMPONENTS = frozenset({"gdpo"})  # more than a total per rollout


def of_rollouts(
    name: str,
    rewards: np.ndarray,
    questions: Sequence[Hashable],
    domains: Mapping[Any, str],
    state: DomainStatistics,
) -> np.ndarray:
    """Advantages for trainers that hold a batch as a list of rollouts, in any order.

    Args:
        name: a key of ``ESTIMATORS`` that needs totals alone.
        rewards: N, the total of each rollout; NaN marks one without a score.
        questions: N, what tells the rollout's question from others in the batch.
        domains: of the questions; rollouts of others are no part of the batch.
        state: as for the estimator.

    Returns:
        N, 0 for rollouts that are no part of the batch.

    Raises:
        ValueError: no rollout belongs to a question with a domain.
    """
    places: dict[Hashable, list[int]] = {}
    for place, question in enumerate(questions):
        if question in domains:
            places.setdefault(question, []).append(place)
    if not places:
        raise ValueError("None of the batch's questions has a domain: hand over the domains too.")
    table = np.full((len(places), max(map(len, places.values()))), np.nan)
    flat = np.zeros(len(rewards))
    for row, of_question in zip(table, places.values(), strict=True):
        row[: len(of_question)] = rewards[of_question]
    made = ESTIMATORS[name](
        Rewards(table[..., None], np.ones(1)), [domains[question] for question in places], state
    )
    for row, of_question in zip(made.advantages, places.values(), strict=True):
        flat[of_question] = row[: len(of_question)]
    return flat


def _standard(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """``(x - mean) / (std + 1e-4)``, unbiased, of the finite values; the others become 0."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=axis, keepdims=True), 1)
    mean = np.where(known, values, 0.0).sum(axis=axis, keepdims=True) / count
    rest = np.where(known, values - mean, 0.0)
    spread = np.sqrt((rest**2).sum(axis=axis, keepdims=True) / np.maximum(count - 1, 1))
    return np.where(spread > EPS, rest / (spread + TRL_EPS), 0.0)


def _plain(
    advantages: np.ndarray, rewards: Rewards, weights: np.ndarray | None = None
) -> Advantages:
    """Advantages of a method without clusters; 0 where there is no reward."""
    questions = len(advantages)
    ones = np.ones(questions)
    final = np.where(np.isfinite(rewards.total), advantages, 0.0)
    none = np.zeros(questions, dtype=int)
    return Advantages(final, ones if weights is None else weights, none, {}, ones, {})
