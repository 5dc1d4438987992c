"""Which training rows are kept, so that no domain, class or data set drowns the others.

Rows are left out, never repeated, before any of them is opened or drawn; validation and test stay
as they are. Repeating rows of rare domains instead is a method of training (``grpo_balanced``).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from qoq_lib.runs import OneSentenceError

Rule = Literal["natural", "domain", "class", "temperature"]
Key = TypeVar("Key", bound=Hashable)
RULES: tuple[Rule, ...] = ("natural", "domain", "class", "temperature")


class BalanceError(OneSentenceError, ValueError):
    """The training rows cannot be balanced as asked."""


@dataclass(frozen=True)
class Balance:
    """How the training split is thinned out.

    Attributes:
        rule: ``natural``: not at all; ``domain``: every domain as often as the rarest;
            ``class``: in every data set each class as often as its rarest (a row with several
            labels is of the rarest of them); ``temperature``: domain shares proportional to
            ``n ** (1 / temperature)``.
        temperature: above 1 flatter than the data, below 1 a longer tail; for that rule only.
        cap: most training rows of one data set, counted before the rule; ``None``: all.
    """

    rule: Rule = "natural"
    temperature: float = 2.0
    cap: int | None = None

    @classmethod
    def read(cls, text: str, cap: int | None = None) -> "Balance":
        """From ``natural``, ``domain``, ``class``, or a number, which is the temperature."""
        try:
            return cls("temperature", float(text), cap)
        except ValueError:
            return cls(text, cap=cap)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.rule not in RULES:
            raise BalanceError(
                f"balance is {self.rule!r}: use natural, domain, class, or a number above 0."
            )
        if not self.temperature > 0:
            raise BalanceError(f"The balance temperature is {self.temperature}: use one above 0.")
        if self.cap is not None and self.cap < 1:
            raise BalanceError(f"The cap per data set is {self.cap}: use 1 or more, or none.")


@dataclass(frozen=True, slots=True)
class Kind:
    """What balancing needs to know of a row."""

    domain: str
    dataset: str
    answers: tuple[str, ...]


def kept_rows(
    kinds: Sequence[Kind], splits: Sequence[str], balance: Balance, seed: int
) -> list[int]:
    """The indices of the rows that stay, in order: all but the training rows ``balance`` drops.

    Which rows of a group go is decided by ``seed`` and the group alone.
    """
    train = [index for index, split in enumerate(splits) if split == "train"]
    kept = train
    if balance.cap is not None:
        by_dataset = _groups(kept, [kinds[index].dataset for index in kept])
        kept = _thinned(by_dataset, dict.fromkeys(by_dataset, balance.cap), seed)
    if balance.rule != "natural":
        kept = _by_rule(kept, kinds, balance, seed)
    dropped = set(train) - set(kept)
    return [index for index in range(len(kinds)) if index not in dropped]


def _by_rule(rows: list[int], kinds: Sequence[Kind], balance: Balance, seed: int) -> list[int]:
    if balance.rule == "class":
        groups = _groups(rows, _classes(rows, kinds))
        rarest: dict[str, int] = {}
        for (dataset, _), members in groups.items():
            rarest[dataset] = min(len(members), rarest.get(dataset, len(members)))
        return _thinned(groups, {key: rarest[key[0]] for key in groups}, seed)
    domains = _groups(rows, [kinds[index].domain for index in rows])
    power = 0.0 if balance.rule == "domain" else 1 / balance.temperature
    weights = {key: len(members) ** power for key, members in domains.items()}
    scale = min((len(domains[key]) / weight for key, weight in weights.items()), default=0.0)
    sizes = {key: max(1, round(scale * weight)) for key, weight in weights.items()}
    return _thinned(domains, sizes, seed)


def _classes(rows: Sequence[int], kinds: Sequence[Kind]) -> list[tuple[str, str]]:
    """Data set and class of each row, where a row with several labels is of the rarest."""
    labels = [[(kinds[index].dataset, answer) for answer in kinds[index].answers] for index in rows]
    count = Counter(label for own in labels for label in own)
    return [min(sorted(own), key=lambda label: count[label]) for own in labels]


def _groups(rows: Sequence[int], keys: Sequence[Key]) -> dict[Key, list[int]]:
    groups: dict[Key, list[int]] = defaultdict(list)
    for index, key in zip(rows, keys, strict=True):
        groups[key].append(index)
    return groups


def _thinned(groups: dict[Key, list[int]], sizes: dict[Key, int], seed: int) -> list[int]:
    """At most ``sizes`` rows of each group, drawn at random; in order."""
    kept: list[int] = []
    for key, members in groups.items():
        rng = random.Random(f"{seed}/balance/{key}")
        kept += rng.sample(members, min(sizes[key], len(members)))
    return sorted(kept)
