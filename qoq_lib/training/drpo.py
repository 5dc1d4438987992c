"""Domain-aware relative policy optimisation (DRPO): from rewards to advantages.

The symbols are those of arXiv 2506.00711, section 3.3 and appendix B. For a question q of domain g
with rollouts i: GRPO's score ``s = (r - mean_q) / (std_q + eps)`` (eq. 1) is divided by a domain
temperature ``T_g = max(sqrt(N_g) mu_g, eps)`` and a cluster temperature ``T_c`` of the same form
(eq. 2-3), so that rare and hard questions weigh more; scores that move far from the reference
policy are damped (B.2); the batch is brought back to unit standard deviation. Pure functions on
arrays and one small state object: no trainer, no torch, no processes in here.
"""

import warnings
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.cluster.vq import kmeans2
from sklearn.cluster import KMeans

EPS = 1e-6
LARGEST = 1e6  # rewards and KLs count as this much at most: a finite sum must stay finite


@dataclass(frozen=True)
class DrpoConfig:
    """Every choice of the method; the defaults are the paper's.

    Attributes:
        by_domain: divide by the domain temperature T_g.
        by_cluster: divide by the cluster temperature T_c.
        k_max: most clusters in a domain.
        tau: elbow rule: stop where one more cluster gains less than ``tau`` times the last gain.
        kl_damping: damp scores by the question's KL to the reference policy (B.2), where given.
        sort_rewards: cluster sorted reward vectors, so the order of rollouts cannot matter.
        relative: mu_g and mu_c are means of reward / attainable reward, where that is given.
        window: earlier questions that temperatures also see; 0: this batch alone; None: all.
        floor: lower clamp of the temperatures, the eps of eq. 2-3.
        power: exponent of the weights ``1 / (T_g T_c)``.
        clamp_clusters: clamp T_c too; else only a T_c within EPS of zero is moved, to EPS.
        domain_mean: mu_g is the mean over questions, or over cluster means, each weighted by the
            inverse of its cluster's size.
        seeding: K-means starts at quantiles of the distinct vectors by mean reward, or from
            scikit-learn's k-means++, random state 0, which depends on the order of questions.
        unbiased_std: n - 1 in both standard deviations, EPS added to the batch's as well.
        domain_column: the column a trainer takes as the domain.
    """

    by_domain: bool = True
    by_cluster: bool = True
    k_max: int = 10
    tau: float = 0.10
    kl_damping: bool = True
    sort_rewards: bool = False
    relative: bool = False
    window: int | None = 0
    floor: float = EPS
    power: float = 1.0
    clamp_clusters: bool = True
    domain_mean: Literal["questions", "clusters"] = "questions"
    seeding: Literal["quantiles", "kmeans++"] = "quantiles"
    unbiased_std: bool = False
    domain_column: Literal["domain", "dataset"] = "domain"


PAPER = DrpoConfig()
"""Eq. 1-3 and B.1-B.2 as printed: temperatures of this batch over the nine clinical domains, both
clamped; elbow rule with k_max 10 and tau 0.10; KL damping; division by the batch's standard
deviation, no mean subtracted."""

RELEASED = DrpoConfig(
    kl_damping=False,
    window=None,
    clamp_clusters=False,
    domain_mean="clusters",
    seeding="kmeans++",
    unbiased_std=True,
    domain_column="dataset",
)
"""Eq. 1-3 as the paper's public code computes them: over every question since the run began, mu_g
weighted by inverse cluster size, T_c not clamped, B.2 left out, data sets as domains. Time and
memory grow with the run. Where the public code divides 0 by 0 the result here is finite."""

RECOMMENDED = DrpoConfig(kl_damping=False, sort_rewards=True, relative=True, floor=0.1)
"""The paper's with order-free reward vectors, difficulty relative to what a row can earn, a higher
floor (under the printed one a domain whose answers all failed can be lost for good) and no damping,
which weakens what is pushed up alone. Why, and why no window, stands in docs/study_search.md."""

PRESETS = {"paper": PAPER, "released": RELEASED, "recommended": RECOMMENDED}


class DomainStatistics:
    """The last ``config.window`` questions (domain and reward vector), and counts by domain.

    A window of W questions of R rollouts is W names and W x R floats, however long the run;
    ``window=None`` keeps every question.
    """

    def __init__(self, config: DrpoConfig) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self._seen: deque[tuple[str, tuple[float, ...]]] = deque(maxlen=config.window)

    def past(self, domain: str, width: int) -> np.ndarray:
        """Reward vectors of a domain in the window, n x ``width``; other widths are left out."""
        kept = [vector for name, vector in self._seen if name == domain and len(vector) == width]
        return np.asarray(kept, dtype=float).reshape(len(kept), width)

    def add(self, domains: Sequence[str], vectors: np.ndarray) -> None:
        """Append a batch: one domain name and one reward vector per question."""
        self.counts.update(domains)
        self._seen.extend(zip(domains, map(tuple, vectors.tolist()), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Plain lists and a dictionary, ready for JSON."""
        seen = [[domain, list(vector)] for domain, vector in self._seen]
        return {"seen": seen, "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.counts = Counter(state["counts"])
        self._seen.clear()
        self._seen.extend((domain, tuple(vector)) for domain, vector in state["seen"])


@dataclass(frozen=True)
class Advantages:
    """What an estimator says of a batch of Q questions with R rollouts each.

    Attributes:
        advantages: Q x R.
        weights: Q, each question's factor, ``(1 / (T_g T_c)) ** power``; 1 if it has no score.
        clusters: Q, the question's cluster inside its domain (0 = hardest; -1 = no score).
        domain_temperatures: T_g by domain name.
        cluster_temperatures: Q, the question's T_c; 1 if it has no score.
        degenerate: counts of questions ``unscored`` (in all rollouts; they enter no temperature),
            ``constant`` (equal rewards, advantages 0), ``alone`` in their domain (one cluster).
    """

    advantages: np.ndarray
    weights: np.ndarray
    clusters: np.ndarray
    domain_temperatures: dict[str, float]
    cluster_temperatures: np.ndarray
    degenerate: dict[str, int]


def compute_advantages(
    rewards: np.ndarray,
    domains: Sequence[str],
    config: DrpoConfig,
    statistics: DomainStatistics,
    kl: np.ndarray | None = None,
    attainable: np.ndarray | None = None,
) -> Advantages:
    """DRPO advantages of one batch; ``statistics`` takes the batch in afterwards.

    Args:
        rewards: Q x R; NaN or infinite marks a rollout without a score, whose advantage is 0.
        domains: Q domain names.
        config: a preset or your own.
        statistics: the window of earlier questions, changed in place.
        kl: Q x R, each rollout's estimate of the KL to the reference policy, summed over its
            tokens (``exp(d) - d - 1`` with ``d = log pi_ref - log pi`` is never negative).
        attainable: Q, the largest reward a rollout of the question can earn; ``None``: 1.
    """
    rewards = np.asarray(rewards, dtype=float)
    attainable = np.ones(len(rewards)) if attainable is None else np.asarray(attainable, float)
    _check(rewards, domains, kl, attainable)
    known = np.isfinite(rewards)
    scored = known.any(axis=1)
    rewards = np.where(known, np.clip(rewards, -LARGEST, LARGEST), np.nan)
    ddof = int(config.unbiased_std)
    scores, vectors = group_scores(rewards, ddof)
    vectors = vectors / attainable[:, None] if config.relative else vectors
    vectors = np.sort(vectors, axis=1) if config.sort_rewards else vectors
    names = np.array(domains)
    clusters, by_cluster = np.full(len(names), -1), np.ones(len(names))
    by_domain, alone = {}, 0
    for name in dict.fromkeys(names[scored].tolist()):
        here = scored & (names == name)
        window = np.concatenate([statistics.past(name, rewards.shape[1]), vectors[here]])
        by_domain[name], labels, temperatures = domain_temperatures(window, config)
        clusters[here] = labels[-here.sum() :]
        by_cluster[here] = temperatures[clusters[here]]
        alone += len(window) == 1

    weights = np.ones(len(names))
    if config.by_domain:
        weights /= np.array([by_domain.get(name, 1.0) for name in domains])
    if config.by_cluster:
        weights /= by_cluster
    weights = np.where(scored, np.sign(weights) * np.abs(weights) ** config.power, 1.0)
    scaled = scores * weights[:, None]
    if config.kl_damping and kl is not None:
        scaled *= kl_damping(scaled, np.asarray(kl, dtype=float))
    statistics.add(names[scored].tolist(), vectors[scored])
    constant = int((scored & ~scores.any(axis=1)).sum())
    degenerate = {"unscored": int((~scored).sum()), "constant": constant, "alone": alone}
    spread = scaled.std(ddof=min(ddof, scaled.size - 1)) + ddof * EPS
    final = scaled / spread if spread > 0 else scaled
    return Advantages(final, weights, clusters, by_domain, by_cluster, degenerate)


def _check(
    rewards: np.ndarray, domains: Sequence[str], kl: np.ndarray | None, attainable: np.ndarray
) -> None:
    if rewards.ndim != 2 or not rewards.size or len(domains) != rewards.shape[0]:
        got = f"shape {rewards.shape} and {len(domains)} domains"
        raise ValueError(f"rewards must be questions x rollouts, one domain each; got {got}.")
    if kl is not None and np.shape(kl) != rewards.shape:
        raise ValueError(f"kl must have the shape of rewards, {rewards.shape}, got {np.shape(kl)}.")
    positive = np.isfinite(attainable) & (attainable >= EPS)
    if attainable.shape != rewards.shape[:1] or not positive.all():
        raise ValueError(f"attainable must be {len(rewards)} positive numbers, got {attainable}.")


def group_scores(rewards: np.ndarray, ddof: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """GRPO's scores (eq. 1), Q x R, and the rewards with unscored rollouts filled by the mean.

    A constant question scores exactly 0: under the paper's floor its weight may be 1e12, which
    would turn rounding errors into the batch's signal.
    """
    known = np.isfinite(rewards)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, rewards, 0.0).sum(axis=1, keepdims=True) / count
    filled = np.where(known, rewards, mean)
    centred = filled - mean
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / np.maximum(count - ddof, 1))
    return np.where(deviation > EPS, centred / (deviation + EPS), 0.0), filled


def kl_damping(scaled: np.ndarray, kl: np.ndarray) -> np.ndarray:
    """B.2: ``m = t_p / (t_p + max(s k, 0))``, Q x R, from s before damping (the paper's is both).

    k is the sum of the KLs of a question's rollouts: they were drawn from pi, so it estimates the
    paper's ``sum_i pi log(pi / pi_ref)`` up to a scale that cancels. The paper leaves t_p open;
    here it is the 75th percentile of the positive ``s k``, the quantile in a commented-out block of
    the released code: a quarter of the pushed-up rollouts lose half or more.
    """
    kl = np.clip(np.nan_to_num(kl), -LARGEST, LARGEST)
    pull = np.maximum(scaled * kl.sum(axis=1, keepdims=True), 0.0)
    if not (pull > 0).any():
        return np.ones_like(scaled)
    threshold = np.quantile(pull[pull > 0], 0.75)
    return threshold / (threshold + pull)


def domain_temperatures(
    window: np.ndarray, config: DrpoConfig
) -> tuple[float, np.ndarray, np.ndarray]:
    """Eq. 2-3 for the n x R vectors of one domain: T_g, each vector's cluster, T_c by cluster."""
    labels, centres = cluster_vectors(window, config)
    sizes, means = np.bincount(labels), centres.mean(axis=1)
    by_cluster = np.sqrt(sizes) * means
    if config.clamp_clusters:
        by_cluster = np.maximum(by_cluster, config.floor)
    by_cluster[np.abs(by_cluster) < EPS] = EPS
    mean = (
        window.mean() if config.domain_mean == "questions" else np.average(means, weights=1 / sizes)
    )
    return max(float(np.sqrt(len(window)) * mean), config.floor), labels, by_cluster


def cluster_vectors(vectors: np.ndarray, config: DrpoConfig) -> tuple[np.ndarray, np.ndarray]:
    """K-means clusters of reward vectors (n x R), hardest first: n labels and k x R centres.

    Elbow rule of B.1: with ``D_k = I_(k-1) - I_k``, the drop of the inertia at the k-th cluster,
    k stops where ``D_(k+1) < tau D_k``. D_1 does not exist: distinct vectors make two at least.
    """
    order = np.arange(len(vectors)) if config.seeding == "kmeans++" else np.lexsort(vectors.T)
    points = vectors[order]
    distinct = np.unique(points, axis=0)
    labels, centres = np.zeros(len(points), dtype=int), points.mean(axis=0, keepdims=True)
    inertia, drop = ((points - centres) ** 2).sum(), 0.0
    for k in range(2, min(config.k_max, len(distinct)) + 1):
        k_labels, k_centres = _kmeans(points, distinct, k, config.seeding)
        k_inertia = ((points - k_centres[k_labels]) ** 2).sum()
        if inertia - k_inertia < config.tau * drop:
            break
        labels, centres, inertia, drop = k_labels, k_centres, k_inertia, inertia - k_inertia
    used, labels = np.unique(labels, return_inverse=True)
    hardest = np.argsort(centres[used].mean(axis=1), kind="stable")
    ranked = np.empty_like(order)
    ranked[order] = np.argsort(hardest)[labels]
    return ranked, centres[used][hardest]


def _kmeans(
    points: np.ndarray, distinct: np.ndarray, k: int, seeding: str
) -> tuple[np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an emptied cluster
        if seeding == "kmeans++":
            fit = KMeans(k, n_init="auto", random_state=0).fit(points.astype(np.float32))
            return fit.labels_.astype(int), fit.cluster_centers_.astype(float)
        by_reward = distinct[np.argsort(distinct.mean(axis=1), kind="stable")]
        start = by_reward[((np.arange(k) + 0.5) / k * len(distinct)).astype(int)]
        centres, labels = kmeans2(points, start, minit="matrix", iter=10, check_finite=False)
        return labels, centres
