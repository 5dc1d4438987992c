"""Sampling whose random numbers belong to a rollout, not to the process that generates it.

``torch.multinomial`` draws from a generator that all rows of a batch share, so that the same seed
samples other rollouts in two processes than in one. Here the noise of a token is a hash of the
rollout's key, the position and the token: Gumbel noise on the log-probabilities, whose largest sum
is a sample from them (Gumbel, 1954; Maddison et al., arXiv 1411.0030, section 2).
"""

import copy
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

_STEP = -7046029254386353131  # 2**64 / golden ratio, as a signed integer: the step of splitmix64


def rollout_keys(
    seed: int, step: int, first: int, count: int, device: torch.device
) -> torch.Tensor:
    """Keys of ``count`` rollouts of a step, numbered from ``first`` over all processes; int64."""
    run, at = torch.tensor([seed, step], device=device)
    rows = torch.arange(first, first + count, device=device)
    return _mixed(_mixed(_mixed(run) + at * _STEP) + rows * _STEP)


def keyed_sampling(config: Any, keys: torch.Tensor) -> tuple[Any, LogitsProcessorList]:
    """A ``GenerationConfig`` that samples as one of greedy decoding, and what makes it sample.

    Temperature, top-k, top-p and min-p are those of ``config``; a greedy one stays as it is.
    ``keys`` has one entry per row of the batch.
    """
    if not config.do_sample:
        return config, LogitsProcessorList()
    steps: list[LogitsProcessor] = []
    if config.temperature not in (None, 1.0):
        steps.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        steps.append(TopKLogitsWarper(config.top_k))
    if config.top_p not in (None, 1.0):
        steps.append(TopPLogitsWarper(config.top_p))
    if config.min_p is not None:
        steps.append(MinPLogitsWarper(config.min_p))
    greedy = copy.deepcopy(config)
    greedy.update(do_sample=False, temperature=None, top_k=None, top_p=None, min_p=None)
    return greedy, LogitsProcessorList([*steps, KeyedGumbel(keys)])


class KeyedGumbel(LogitsProcessor):
    """Adds to each row's scores the Gumbel noise of its key and of the position to be filled."""

    def __init__(self, keys: torch.Tensor) -> None:
        self.keys, self.width = keys, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Rows x vocabulary, in double precision: ties would favour the first token."""
        self.width = self.width or input_ids.shape[1]
        position = torch.tensor(input_ids.shape[1] - self.width, device=scores.device)
        place = _mixed(self.keys + position * _STEP)
        tokens = torch.arange(scores.shape[1], device=scores.device) * _STEP
        bits = _shifted(_mixed(place[:, None] + tokens), 11)
        uniform = (bits.double() + 0.5) * 2.0**-53
        return scores.double() - torch.log(-torch.log(uniform))


def _mixed(values: torch.Tensor) -> torch.Tensor:
    """The output function of splitmix64 (Steele, Lea and Flood, 2014) on int64."""
    values = (values ^ _shifted(values, 30)) * -4658895280553007687
    values = (values ^ _shifted(values, 27)) * -7723592293110705685
    return values ^ _shifted(values, 31)


def _shifted(values: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift to the right; the operator would copy the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
