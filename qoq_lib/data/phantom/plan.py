"""Which rows a phantom of a given size holds: splits, domains, diagnoses, patients.

Numbers of rows are apportioned, not drawn, so that they depend on ``rows`` alone. The training
split follows the shape of the paper's corpus (chest X-ray and CT dominant, ECG and ultrasound rare;
arXiv 2506.00711, section 3.2), tempered: at the corpus's true ratios, thousands to one, the rare
domains would have no rows in a small set. ``validation`` and ``test`` are balanced over domains and
diagnoses as the paper's evaluation set is; ``align`` is balanced over domains and patterns.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng

from qoq_lib.data.phantom.catalog import FINDINGS, Finding, patterns
from qoq_lib.domains import DOMAIN_NAMES
from qoq_lib.runs import OneSentenceError

SPLIT_SHARES: dict[str, float] = {"align": 0.40, "train": 0.40, "validation": 0.05, "test": 0.15}
TRAIN_SHARES: dict[str, float] = {
    "chest_xray": 0.24,
    "mammography": 0.11,
    "dermoscopy": 0.13,
    "ct": 0.22,
    "fundus": 0.07,
    "ultrasound": 0.04,
    "mri": 0.06,
    "pathology": 0.09,
    "ecg": 0.04,
}
MIN_ROWS = 180
"""Below this the smallest split cannot hold all nine domains."""


class PhantomError(OneSentenceError, ValueError):
    """The phantom cannot be made as asked."""


@dataclass(frozen=True, slots=True)
class Patient:
    """One made-up patient: id, sex (``F`` or ``M``), age in years."""

    id: str
    sex: str
    age: int


@dataclass(frozen=True, slots=True)
class Case:
    """One row to be: who, where it goes and what it shows."""

    id: str
    domain: str
    split: str
    finding: Finding
    patient: Patient


def named_rng(seed: int, name: str) -> Generator:
    """A generator that depends on ``seed`` and ``name`` alone, so that any row can be remade."""
    digest = hashlib.sha256(name.encode()).digest()
    return default_rng(SeedSequence([seed, int.from_bytes(digest[:16], "big")]))


def plan(rows: int, seed: int) -> list[Case]:
    """All cases of a phantom in a shuffled order; raises ``PhantomError`` below ``MIN_ROWS``."""
    if rows < MIN_ROWS:
        raise PhantomError(
            f"A phantom of {rows} rows cannot hold all nine domains in every split: "
            f"ask for at least {MIN_ROWS} rows."
        )
    sizes = apportion(rows, list(SPLIT_SHARES.values()))
    slots = [
        (split, domain, finding)
        for split, size in zip(SPLIT_SHARES, sizes, strict=True)
        for domain, finding in _contents(split, size)
    ]
    order = named_rng(seed, "order").permutation(len(slots))
    return _cases([slots[i] for i in order], seed)


def apportion(total: int, shares: Sequence[float], least: int = 0) -> list[int]:
    """Whole numbers that sum to ``total``, in proportion to ``shares``, none under ``least``.

    Webster's divisor method with ``least`` seats given beforehand; ``least`` is lowered where
    ``total`` does not reach for it.
    """
    weights = np.asarray(shares, dtype=float)
    counts = np.full(len(weights), min(least, total // len(weights)))
    for _ in range(total - int(counts.sum())):
        counts[np.argmax(weights / (counts + 0.5))] += 1
    return counts.tolist()


def _contents(split: str, size: int) -> list[tuple[str, Finding]]:
    """Domain and finding of each row of a split."""
    long_tailed = split == "train"
    shares = [TRAIN_SHARES[domain] if long_tailed else 1.0 for domain in DOMAIN_NAMES]
    most = max(len(findings) for findings in FINDINGS.values())
    counts = apportion(size, shares, least=most)
    return [
        (domain, finding)
        for domain, count in zip(DOMAIN_NAMES, counts, strict=True)
        for finding in _findings(split, domain, count)
    ]


def _findings(split: str, domain: str, count: int) -> list[Finding]:
    """The findings of ``count`` rows of one domain and split."""
    kinds = list(FINDINGS[domain])
    if split == "align":
        kinds = [finding for finding in kinds if not finding.needs_history]
        assert len(kinds) == len(patterns(domain))
    shares = [finding.share if split == "train" else 1.0 for finding in kinds]
    counts = apportion(count, shares, least=1)
    return [finding for finding, n in zip(kinds, counts, strict=True) for _ in range(n)]


def _cases(slots: list[tuple[str, str, Finding]], seed: int) -> list[Case]:
    """Number the rows within their domain and deal them to patients of one split and domain."""
    rng = named_rng(seed, "patients")
    numbers: dict[str, int] = {}
    open_patients: dict[tuple[str, str], list[Patient]] = {}
    cases, patients = [], 0
    for split, domain, finding in slots:
        waiting = open_patients.setdefault((split, domain), [])
        if not waiting:
            visits = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
            waiting.extend([_patient(patients, seed, domain)] * visits)
            patients += 1
        number = numbers.setdefault(domain, 0)
        numbers[domain] += 1
        name = f"phantom/{domain}/{number:06d}"
        cases.append(Case(name, domain, split, finding, waiting.pop()))
    return cases


def _patient(number: int, seed: int, domain: str) -> Patient:
    """Sex and age of patient ``number``; mammography is of women of 40 and over."""
    name = f"phantom-p{number:05d}"
    rng = named_rng(seed, name)
    age = int(np.clip(rng.normal(58, 15), 40 if domain == "mammography" else 18, 92))
    sex = "F" if domain == "mammography" else str(rng.choice(["F", "M"]))
    return Patient(name, sex, age)
