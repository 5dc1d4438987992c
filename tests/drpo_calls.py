"""One batch through DRPO with fresh statistics, for its tests."""

import numpy as np

from qoq_lib.training.drpo import (
    PRESETS,
    Advantages,
    DomainStatistics,
    DrpoConfig,
    compute_advantages,
)


def drpo(
    rewards: object, domains: list[str], preset: str = "paper", kl: np.ndarray | None = None
) -> Advantages:
    return drpo_as(PRESETS[preset], rewards, domains, kl=kl)


def drpo_as(config: DrpoConfig, rewards: object, domains: list[str], **more: object) -> Advantages:
    return compute_advantages(np.array(rewards), domains, config, DomainStatistics(config), **more)
