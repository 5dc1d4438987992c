r"""Advantage estimators of this package for training with verl (0.9, its default v1 trainers).

    VERL_USE_EXTERNAL_MODULES=qoq_lib.training.verl_plugin python3 -m verl.trainer.main_ppo \
        algorithm.adv_estimator=qoq_drpo_recommended ...

Names are ``qoq_drpo_<preset>`` and ``qoq_<estimator>``; ``data_source`` of verl's rows must be the
clinical domain. An estimator is given one reward per rollout and verl saves no state of it, so
there is no KL damping, every question can earn 1, and a resumed run starts with an empty window.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
import transfer_queue
from verl.trainer.ppo.core_algos import register_adv_est
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from qoq_lib.training.drpo import PRESETS, RECOMMENDED, DomainStatistics
from qoq_lib.training.estimators import ESTIMATORS, NEED_COMPONENTS, NEED_GREEDY, of_rollouts

domains: dict[str, str] = {}  # of the questions of the batch under way, by verl's uid


def noting_domains(compute: Callable[..., Any]) -> Callable[..., Any]:
    """An estimator sees no column of verl's rows, so the trainer notes the domains just before."""

    @wraps(compute)
    def compute_advantage(trainer: PPOTrainer, batch: Any, metrics: dict[str, Any]) -> Any:
        tagged = zip(batch.keys, batch.tags, strict=True)
        real = [key for key, tag in tagged if not tag.get("is_padding", False)]
        rows = transfer_queue.kv_batch_get(real, batch.partition_id, ["uid", "data_source"])
        domains.clear()
        uids, names = (rows.pop(column).tolist() for column in ("uid", "data_source"))
        domains.update(zip(uids, names, strict=True))
        return compute(trainer, batch, metrics)

    return compute_advantage


def advantages(
    name: str, state: DomainStatistics, *, token_level_rewards: torch.Tensor, **given: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """What verl calls advantages and returns, both rollouts x tokens; 0 for its padding."""
    totals = token_level_rewards.sum(dim=-1).double().cpu().numpy()
    flat = torch.as_tensor(of_rollouts(name, totals, given["index"], domains, state))
    spread = flat.to(token_level_rewards).unsqueeze(-1) * given["response_mask"]
    return spread, spread


offered = {f"qoq_drpo_{preset}": ("drpo", config) for preset, config in PRESETS.items()}
plain = ESTIMATORS.keys() - NEED_GREEDY - NEED_COMPONENTS - {"drpo"}
offered |= {f"qoq_{name}": (name, RECOMMENDED) for name in sorted(plain)}
for verl_name, (own_name, config) in offered.items():
    register_adv_est(verl_name)(partial(advantages, own_name, DomainStatistics(config)))
PPOTrainer._compute_advantage = noting_domains(PPOTrainer._compute_advantage)
