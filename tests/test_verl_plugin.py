"""The estimators in verl's own registry, called by verl's own trainer; needs verl installed."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qoq_lib.training.drpo import PRESETS, DomainStatistics, compute_advantages

pytest.importorskip("verl", reason="verl is not installed: pip install 'verl[verl-core]'")
OmegaConf = pytest.importorskip("omegaconf").OmegaConf
queue = pytest.importorskip("transfer_queue", reason="TransferQueue is not installed")

REWARDS = np.array([[0.0, 1.0], [0.3, 0.9], [0.0, 0.1]])
DOMAINS = ["ct", "ct", "ecg"]
LENGTHS = [2, 1, 3, 1, 2, 4]


def rollout(place: int) -> dict[str, Any]:
    """A row as verl's agent loop stores it: the reward stands at the last token."""
    length = LENGTHS[place]
    scores = torch.zeros(length)
    scores[-1] = REWARDS.reshape(-1)[place]
    return {
        "uid": f"question{place // 2}",
        "data_source": DOMAINS[place // 2],
        "response_mask": torch.ones(length, dtype=torch.int64),
        "rm_scores": scores,
        "rollout_log_probs": torch.zeros(length),
    }


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The queue without its servers: what is put stays in a dictionary."""
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    rows = {f"question{place // 2}_{place % 2}_0": rollout(place) for place in range(6)}
    padding = rollout(0) | {"uid": "pad0"}
    held: dict[str, Any] = {"rows": rows | {"pad0_0_0": padding}}

    def get(keys: list[str], partition_id: str, select_fields: list[str]) -> Any:
        chosen = [held["rows"][key] for key in keys]
        picked = [{name: row[name] for name in select_fields if name in row} for row in chosen]
        return list_of_dict_to_tensordict(picked)

    def put(keys: list[str], partition_id: str, fields: Any) -> None:
        held["written"] = fields["advantages"].to_padded_tensor(0.0)

    monkeypatch.setattr(queue, "kv_batch_get", get)
    monkeypatch.setattr(queue, "kv_batch_put", put)
    return held


def test_verls_trainer_finds_drpo_and_tells_it_the_domains(stored: dict[str, Any]) -> None:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    import qoq_lib.training.verl_plugin  # noqa: F401  as VERL_USE_EXTERNAL_MODULES does

    keys = list(stored["rows"])
    batch = queue.KVBatchMeta(
        keys=keys,
        tags=[{"is_padding": key.startswith("pad")} for key in keys],
        partition_id="train",
    )
    algorithm = {"adv_estimator": "qoq_drpo_paper", "gamma": 1.0, "lam": 1.0}
    config = OmegaConf.create(
        {
            "algorithm": algorithm | {"use_kl_in_reward": False},
            "actor_rollout_ref": {"rollout": {"n": 2}},
        }
    )
    PPOTrainer._compute_advantage(SimpleNamespace(config=config), batch, {})
    paper = PRESETS["paper"]
    expected = compute_advantages(REWARDS, DOMAINS, paper, DomainStatistics(paper)).advantages
    for place, (row, length) in enumerate(zip(stored["written"], LENGTHS, strict=False)):
        assert row[:length].tolist() == pytest.approx([expected.reshape(-1)[place]] * length)
        assert not row[length:].any()
    assert not stored["written"][6].any()


def test_every_estimator_that_totals_suffice_for_is_registered() -> None:
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    import qoq_lib.training.verl_plugin  # noqa: F401

    for name in ("drpo_paper", "drpo_released", "drpo_recommended", "grpo", "rloo", "disco"):
        assert callable(get_adv_estimator_fn(f"qoq_{name}"))
    with pytest.raises(ValueError, match="Unknown advantage estimator"):
        get_adv_estimator_fn("qoq_remax")  # needs greedy completions
