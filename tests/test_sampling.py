"""Sampling by key: the right distribution, and the same rollouts whatever the batch looks like."""

from types import SimpleNamespace

import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from qoq_lib.training.generation.sampling import KeyedGumbel, keyed_sampling, rollout_keys

CPU = torch.device("cpu")


def drawn(keys: torch.Tensor, scores: torch.Tensor, position: int = 0) -> torch.Tensor:
    noise = KeyedGumbel(keys)
    noise(torch.zeros(len(keys), 7, dtype=torch.long), scores)  # the first position sets the width
    return noise(torch.zeros(len(keys), 7 + position, dtype=torch.long), scores).argmax(dim=1)


def test_tokens_come_with_their_probabilities() -> None:
    chances = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01])
    for step, position in ((0, 0), (1, 0), (1, 5)):
        keys = rollout_keys(3, step, 0, 20_000, CPU)
        found = torch.bincount(drawn(keys, chances.log().expand(20_000, 5), position), minlength=5)
        assert chisquare(found.numpy(), (chances * 20_000).numpy()).pvalue > 1e-3


def test_rollouts_steps_positions_and_seeds_are_independent() -> None:
    scores = torch.zeros(10_000, 10)
    plain = drawn(rollout_keys(0, 0, 0, 10_000, CPU), scores)
    late = drawn(rollout_keys(0, 0, 0, 10_000, CPU), scores, position=1)
    neighbours = drawn(rollout_keys(0, 0, 1, 10_000, CPU), scores)
    assert 0.08 < (late == neighbours).double().mean() < 0.12
    others = [
        drawn(rollout_keys(0, 1, 0, 10_000, CPU), scores),
        drawn(rollout_keys(1, 0, 0, 10_000, CPU), scores),
        late,
        neighbours,
    ]
    for other in others:
        assert 0.08 < (plain == other).double().mean() < 0.12  # as chance has it: one in ten


def test_a_part_of_the_batch_draws_what_the_whole_draws() -> None:
    scores = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    whole = drawn(rollout_keys(0, 4, 0, 8, CPU), scores)
    parts = [
        drawn(rollout_keys(0, 4, start, 4, CPU), scores[start : start + 4]) for start in (0, 4)
    ]
    assert torch.cat(parts).tolist() == whole.tolist()


def test_the_configuration_decides_what_may_be_drawn() -> None:
    config = GenerationConfig(do_sample=True, temperature=0.5, top_k=2)
    greedy, processors = keyed_sampling(config, rollout_keys(0, 0, 0, 4000, CPU))
    scores = torch.tensor([0.8, 0.15, 0.05]).log().expand(4000, 3)
    seen = processors(torch.zeros(4000, 3, dtype=torch.long), scores).argmax(dim=1)
    assert not greedy.do_sample and config.do_sample
    share = torch.bincount(seen, minlength=3) / 4000
    expected = 0.8**2 / (0.8**2 + 0.15**2)  # temperature 0.5 squares the odds, top_k drops a token
    assert abs(float(share[0]) - expected) < 0.02 and share[2] == 0


def test_greedy_decoding_stays_greedy() -> None:
    config = SimpleNamespace(do_sample=False)
    assert keyed_sampling(config, rollout_keys(0, 0, 0, 4, CPU)) == (config, [])
