"""The arms of a comparison, each a file in ``configs/method``: advantages, loss and sampling.

All arms share checkpoint, data order and budget, which are no business of a method: a file that
sets them is refused.
"""

import random
from collections import defaultdict
from collections.abc import Set
from dataclasses import fields, replace
from typing import Any, Literal

from datasets import Dataset
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from trl import GRPOConfig

from qoq_lib.model.loading import LoadError, read_config
from qoq_lib.training.drpo import PRESETS, DrpoConfig
from qoq_lib.training.estimators import ESTIMATORS

LOSS_FIELDS = frozenset(
    {
        *("loss_type", "beta", "epsilon", "epsilon_high", "delta", "importance_sampling_level"),
        *("mask_truncated_completions", "top_entropy_quantile", "num_iterations"),
    }
)
"""Fields of ``GRPOConfig`` that a method may set; the others are budget, or made here."""


class Method(BaseModel):
    """An arm, from ``configs/method/<name>.yaml``.

    Attributes:
        advantages: a key of ``ESTIMATORS``; ``None``: supervised training on the answers.
        drpo: ``preset``, and the fields of ``DrpoConfig`` in which the arm differs from it.
        grpo: fields of TRL's ``GRPOConfig`` that make the loss (``LOSS_FIELDS``).
        updates_per_generation: optimiser steps that share one generation; the rollouts per step
            stay the same, so the budget does too.
        sampling: ``as_is``: every question equally often; ``balanced``: every domain.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    advantages: str | None
    drpo: dict[str, Any] = Field(default_factory=dict)
    grpo: dict[str, Any] = Field(default_factory=dict)
    updates_per_generation: int = Field(default=1, ge=1)
    sampling: Literal["as_is", "balanced"] = "as_is"

    @field_validator("advantages")
    @classmethod
    def _known_estimator(cls, name: str | None) -> str | None:
        _refuse_unknown("advantages", {name} - {None}, set(ESTIMATORS))
        return name

    @field_validator("drpo")
    @classmethod
    def _known_choices(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = {field.name for field in fields(DrpoConfig)} | {"preset"}
        _refuse_unknown("drpo", set(values), known)
        _refuse_unknown("drpo.preset", {values.get("preset", "paper")}, set(PRESETS))
        return values

    @field_validator("grpo")
    @classmethod
    def _loss_only(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = LOSS_FIELDS & {field.name for field in fields(GRPOConfig)}
        _refuse_unknown("grpo", set(values), known)
        return values

    @property
    def drpo_config(self) -> DrpoConfig:
        """The preset (``recommended`` if none is named) with the arm's own choices."""
        own = {name: value for name, value in self.drpo.items() if name != "preset"}
        return replace(PRESETS[self.drpo.get("preset", "recommended")], **own)


def _refuse_unknown(what: str, given: Set[Any], known: Set[str]) -> None:
    if given - known:
        raise ValueError(
            f"{what} cannot be {', '.join(map(repr, sorted(given - known)))}: use "
            f"{', '.join(sorted(known))}"
        )


def load_method(name: str) -> Method:
    """Read ``configs/method/<name>.yaml``; ``LoadError`` for an unknown name or a bad file."""
    try:
        return Method(**read_config("method", name))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LoadError(f"configs/method/{name}.yaml, {where}: {first['msg']}.") from error


def balanced(rows: Dataset, seed: int) -> Dataset:
    """As many rows, drawn anew with every domain equally likely; rows of rare domains repeat.

    Inside a domain rows are taken in shuffled rounds, so none repeats before all had their turn.
    """
    rng = random.Random(seed)
    by_domain: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(rows["domain"]):
        by_domain[name].append(index)
    queues: dict[str, list[int]] = {name: [] for name in by_domain}
    chosen = []
    for _ in range(len(rows)):
        name = rng.choice(sorted(by_domain))
        if not queues[name]:
            queues[name] = rng.sample(by_domain[name], len(by_domain[name]))
        chosen.append(queues[name].pop())
    return rows.select(chosen)
