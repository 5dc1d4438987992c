"""Domain-aware relative policy optimisation (DRPO): from rewards to advantages.

The symbols are those of arXiv 2506.00711, section 3.3 and appendix B. For a question q of domain g
with rollouts i: GRPO's score ``s = (r - mean_q) / (std_q + eps)`` (eq. 1) is divided by a domain
temperature ``T_g = sqrt(N_g) mu_g`` and a cluster temperature ``T_c = sqrt(N_c) mu_c`` (eq. 2-3),
so that rare and hard questions weigh more; scores that move far from the reference policy are
damped (B.2); the batch is brought back to unit standard deviation. Pure functions on arrays and one
small state object: no trainer, no torch, no processes in here.
"""

import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

EPS = 1e-6
LARGEST_KL = 1e6  # an infinite KL counts as this much, an unknown one as none


@dataclass(frozen=True)
class DrpoConfig:
    """Every choice of the method; the defaults are the paper's.

    Attributes:
        by_domain: divide by the domain temperature T_g.
        by_cluster: divide by the cluster temperature T_c.
        k_max: most clusters in a domain (paper: 10).
        tau: elbow rule: stop where one more cluster gains less than ``tau`` times the last gain.
        kl_damping: damp scores by the question's KL to the reference policy (B.2), where given.
        sort_rewards: cluster sorted reward vectors, so the order of rollouts cannot matter.
        window: questions of earlier batches that temperatures also see; 0 = this batch alone.
        floor: lower clamp of both temperatures.
        power: exponent of the weights ``1 / (T_g T_c)``; the paper's is 1.
    """

    by_domain: bool = True
    by_cluster: bool = True
    k_max: int = 10
    tau: float = 0.10
    kl_damping: bool = True
    sort_rewards: bool = False
    window: int = 0
    floor: float = EPS
    power: float = 1.0


PRESETS: dict[str, DrpoConfig] = {
    "paper": DrpoConfig(),
    "recommended": DrpoConfig(sort_rewards=True, window=256, floor=0.1, power=0.5),
}
"""``paper``: eq. 1-3 and B.1-B.2 as printed. ``recommended``: order-free reward vectors, and
temperatures from a bounded window, because a rare domain has one or two questions in a batch; the
square root of the weights, because at power 1 a single rare question can dominate a batch."""


class DomainStatistics:
    """The last ``config.window`` questions: their domains and reward vectors."""

    def __init__(self, config: DrpoConfig) -> None:
        self._seen: deque[tuple[str, tuple[float, ...]]] = deque(maxlen=config.window)

    def past(self, domain: str, width: int) -> np.ndarray:
        """Reward vectors of a domain in the window, n x ``width``; other widths are left out."""
        kept = [vector for name, vector in self._seen if name == domain and len(vector) == width]
        return np.asarray(kept, dtype=float).reshape(len(kept), width)

    def add(self, domains: Sequence[str], vectors: np.ndarray) -> None:
        """Append a batch: one domain name and one reward vector per question."""
        for domain, vector in zip(domains, vectors, strict=True):
            self._seen.append((domain, tuple(float(value) for value in vector)))

    def state_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        return {"seen": [[domain, list(vector)] for domain, vector in self._seen]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self._seen.clear()
        self._seen.extend((domain, tuple(vector)) for domain, vector in state["seen"])


@dataclass(frozen=True)
class Advantages:
    """Result of ``compute_advantages``; Q questions, R rollouts each.

    Attributes:
        advantages: Q x R.
        weights: Q, each question's factor, ``(1 / (T_g T_c)) ** power``.
        clusters: Q, the question's cluster inside its domain (0 = hardest).
        domain_temperatures: T_g by domain name.
        cluster_temperatures: Q, the question's T_c.
    """

    advantages: np.ndarray
    weights: np.ndarray
    clusters: np.ndarray
    domain_temperatures: dict[str, float]
    cluster_temperatures: np.ndarray


def compute_advantages(
    rewards: np.ndarray,
    domains: Sequence[str],
    config: DrpoConfig,
    statistics: DomainStatistics,
    kl: np.ndarray | None = None,
) -> Advantages:
    """DRPO advantages of one batch; ``statistics`` takes the batch in afterwards.

    Args:
        rewards: Q x R; NaN or infinite marks a rollout that could not be scored, whose advantage
            is 0.
        domains: Q domain names.
        config: a preset or your own.
        statistics: the window of earlier questions, changed in place.
        kl: Q x R, each rollout's KL to the reference policy (summed over tokens), or ``None``.
    """
    rewards = np.asarray(rewards, dtype=float)
    if rewards.ndim != 2 or not rewards.size or len(domains) != rewards.shape[0]:
        raise ValueError(
            f"rewards must be questions x rollouts, not empty, one domain per question; got shape "
            f"{rewards.shape} and {len(domains)} domains."
        )
    if kl is not None and np.shape(kl) != rewards.shape:
        raise ValueError(f"kl must have the shape of rewards, {rewards.shape}, got {np.shape(kl)}.")
    scores, vectors = group_scores(rewards)
    if config.sort_rewards:
        vectors = np.sort(vectors, axis=1)
    clusters, by_domain, by_cluster = _temperatures(vectors, domains, config, statistics)
    weights = np.ones(len(domains))
    if config.by_domain:
        weights /= np.array([by_domain[name] for name in domains])
    if config.by_cluster:
        weights /= by_cluster
    weights **= config.power
    scaled = scores * weights[:, None]
    if config.kl_damping and kl is not None:
        scaled *= kl_damping(scaled, np.asarray(kl, dtype=float))
    statistics.add(domains, vectors)
    spread = scaled.std()
    advantages = scaled / spread if spread > 0 else scaled
    return Advantages(advantages, weights, clusters, by_domain, by_cluster)


def group_scores(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """GRPO's scores (eq. 1), Q x R, and the rewards with unscored rollouts filled by the mean.

    A question whose rewards are all the same scores exactly 0: its weight may be 1e12 under the
    paper's floor, and would turn rounding errors into the batch's signal.
    """
    known = np.isfinite(rewards)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, rewards, 0.0).sum(axis=1, keepdims=True) / count
    filled = np.where(known, rewards, mean)
    centred = filled - mean
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    return np.where(deviation > EPS, centred / (deviation + EPS), 0.0), filled


def kl_damping(scaled: np.ndarray, kl: np.ndarray) -> np.ndarray:
    """B.2: ``m = t_p / (t_p + max(s k, 0))``, Q x R, k summed over a question's rollouts.

    The paper leaves ``t_p`` open; it is the 75th percentile of the positive ``s k`` here, the value
    in the released code's commented-out block, so a quarter of the pushed-up rollouts are at least
    halved.
    """
    kl = np.clip(np.nan_to_num(kl), -LARGEST_KL, LARGEST_KL)
    pull = np.maximum(scaled * kl.sum(axis=1, keepdims=True), 0.0)
    if not (pull > 0).any():
        return np.ones_like(scaled)
    threshold = np.quantile(pull[pull > 0], 0.75)
    return threshold / (threshold + pull)


def cluster_vectors(vectors: np.ndarray, k_max: int, tau: float) -> np.ndarray:
    """K-means cluster of each reward vector (n x R), numbered from hardest to easiest.

    The number of clusters follows the elbow rule of B.1 on the inertia I_k: it stays at k where
    ``I_k - I_(k+1) < tau (I_(k-1) - I_k)``, with ``I_1`` in place of the first difference.
    Centres start at quantiles of the distinct vectors by mean reward, and vectors are taken in
    sorted order, so nothing depends on a random state or on the order of the questions.
    """
    order = np.lexsort(vectors.T)
    vectors = vectors[order]
    distinct = np.unique(vectors, axis=0)
    distinct = distinct[np.argsort(distinct.mean(axis=1), kind="stable")]
    cap = min(k_max, len(distinct))
    labels = np.zeros(len(vectors), dtype=int)
    inertia = _inertia(vectors, labels)
    gain = inertia
    for k in range(2, cap + 1):
        start = distinct[((np.arange(k) + 0.5) / k * len(distinct)).astype(int)]
        tried = _kmeans(vectors, start)
        next_gain = inertia - _inertia(vectors, tried)
        if next_gain <= tau * gain:
            break
        labels, inertia, gain = tried, inertia - next_gain, next_gain
    hardness = {label: vectors[labels == label].mean() for label in np.unique(labels)}
    rank = {label: place for place, label in enumerate(sorted(hardness, key=hardness.__getitem__))}
    ranked = np.empty_like(labels)
    ranked[order] = [rank[label] for label in labels]
    return ranked


def _kmeans(vectors: np.ndarray, start: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():  # an emptied cluster is fine: it is simply not used
        warnings.simplefilter("ignore", UserWarning)
        return kmeans2(vectors, start, minit="matrix", iter=10)[1]


def _inertia(vectors: np.ndarray, labels: np.ndarray) -> float:
    groups = (vectors[labels == label] for label in np.unique(labels))
    return float(sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups))


def _temperatures(
    vectors: np.ndarray, domains: Sequence[str], config: DrpoConfig, statistics: DomainStatistics
) -> tuple[np.ndarray, dict[str, float], np.ndarray]:
    """Cluster of each question, T_g by domain, and T_c of each question's cluster."""
    clusters = np.zeros(len(domains), dtype=int)
    by_cluster = np.ones(len(domains))
    by_domain: dict[str, float] = {}
    for name in dict.fromkeys(domains):
        here = np.array([domain == name for domain in domains])
        window = np.concatenate([statistics.past(name, vectors.shape[1]), vectors[here]])
        by_domain[name] = _temperature(window, config)
        labels = cluster_vectors(window, config.k_max, config.tau)
        clusters[here] = labels[-here.sum() :]
        by_cluster[here] = [
            _temperature(window[labels == label], config) for label in clusters[here]
        ]
    return clusters, by_domain, by_cluster


def _temperature(vectors: np.ndarray, config: DrpoConfig) -> float:
    return max(float(np.sqrt(len(vectors)) * vectors.mean()), config.floor)
