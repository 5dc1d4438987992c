"""Rollouts by transformers' own ``generate``: prompts read in buckets, answers decoded together.

The prompts of a batch differ in length (an ECG takes eight tokens, a volume thousands), and a batch
padded to the longest computes mostly padding. So prompts of like length are read together, and
their key-value caches are laid side by side, one copy per rollout. Decoding stays one batch: each
of its steps reads all weights, however few its rows.

On a GPU the answers are decoded in a static cache: transformers compiles the decoding step for one
(CUDA graphs), which TRL's own call of ``generate`` forbids. The cache is kept, since a graph holds
its address.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Cache, CompileConfig, DynamicCache, GenerationConfig, StaticCache

from qoq_lib.training.generation.attention import reading_shared_heads
from qoq_lib.training.generation.sampling import keyed_sampling
from qoq_lib.training.sharing import Prompt, backbone_of, collate, left_padded, positions

BUCKET_COST = 1024
"""Padded tokens that one more forward pass must spare: more than the short prompts of the tiny size
ever have, which are read at once."""

CACHE_STEP = 256
"""Static caches hold multiples of this many tokens, so that few lengths are ever compiled."""


def buckets(lengths: Sequence[int], cost: float = BUCKET_COST) -> list[list[int]]:
    """Indices of the prompts that are read together, the shortest prompts first.

    The split with the fewest tokens, padding included, where each bucket counts ``cost`` more.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    totals, starts = [0.0], [0]
    for stop in range(1, len(order) + 1):
        width = lengths[order[stop - 1]]
        sums = [totals[start] + (stop - start) * width for start in range(stop)]
        starts.append(min(range(stop), key=sums.__getitem__))
        totals.append(sums[starts[-1]] + cost)
    found = []
    stop = len(order)
    while stop:
        found.append(sorted(order[starts[stop] : stop]))
        stop = starts[stop]
    return found[::-1]


@dataclass
class Decoder:
    """Samples the rollouts of a batch of questions.

    Attributes:
        device: where the model is.
        pad_id: the padding token.
        static: whether answers are decoded in a static cache, which transformers compiles on a GPU.
        sharded: whether processes share one model's parts, so that all of them must make as many
            forward passes: each reads its prompts at once, and goes on until the last answer of all
            has ended.
        bucket_cost: see ``buckets``.
    """

    device: torch.device
    pad_id: int
    static: bool = False
    sharded: bool = False
    bucket_cost: float = BUCKET_COST
    _held: dict[int, StaticCache] = field(default_factory=dict, repr=False)

    @torch.no_grad()
    def generate(
        self, model: Any, prompts: Sequence[Prompt], config: GenerationConfig, keys: torch.Tensor
    ) -> torch.Tensor:
        """One continuation per prompt; prompts that are the same object are read once.

        Args:
            model: the language model with its media towers, unwrapped.
            prompts: of the rollouts.
            config: transformers' settings of sampling.
            keys: of the rollouts, from ``rollout_keys``; same keys, same random numbers.

        Returns:
            Token ids, prompts x new tokens.
        """
        width = max(len(prompt.input_ids) for prompt in prompts)
        cache = self._cache(model, len(prompts), width + config.max_new_tokens)
        place = self._fill(cache, model, prompts, width)
        ids = [prompt.input_ids for prompt in prompts]
        mask = left_padded([torch.ones_like(row) for row in ids], width, 0)
        settings = copy.copy(config)
        settings.disable_compile = not self.static
        if self.static and self.device.type == "cuda":
            settings.compile_config = CompileConfig(dynamic=False)  # shapes hardly ever change
        settings, processors = keyed_sampling(settings, keys)
        with reading_shared_heads(model):
            tokens = model.generate(
                input_ids=left_padded(ids, width, self.pad_id).to(self.device),
                attention_mask=mask.to(self.device),
                position_ids=place,
                past_key_values=cache,
                generation_config=settings,
                logits_processor=processors,
                synced_gpus=self.sharded,  # generate does not see that accelerate shards
            )
        return tokens[:, width:]

    def _fill(
        self, cache: Cache, model: Any, prompts: Sequence[Prompt], width: int
    ) -> torch.Tensor:
        """Lay all tokens but the last into ``cache``; the last one's M-RoPE position."""
        distinct = list(dict.fromkeys(prompts))
        cost = math.inf if self.sharded else self.bucket_cost
        groups = buckets([len(prompt.input_ids) for prompt in distinct], cost)
        read = [
            _read(model, rows, [distinct[i] for i in rows], self.device, self.pad_id)
            for rows in groups
        ]
        owner = torch.tensor([distinct.index(prompt) for prompt in prompts], device=self.device)
        _lay(cache, read, width - 1, owner)
        place = torch.ones(3, len(distinct), 1, dtype=torch.long, device=self.device)
        for part in read:
            place[:, part.rows] = part.last
        return place[:, owner]

    def _cache(self, model: Any, rows: int, length: int) -> Cache:
        """An empty cache; a static one is taken up again where it is large enough."""
        text = model.config.get_text_config(decoder=True)
        if not self.static:
            return DynamicCache(config=text)
        held = self._held.get(rows)
        if held is None or held.get_max_length() < length:
            # No more than the batch needs: the plan of the memory counts on that, and each step
            # reads the whole cache. It never shrinks, so that only the longest batch so far is
            # compiled anew: of 1000 with prompts of 300 to 4000 tokens about three are, once their
            # lengths are rounded, and torch gives up after eight.
            length = -(-length // CACHE_STEP) * CACHE_STEP
            held = self._held[rows] = StaticCache(config=text, max_cache_len=length)
        held.reset()
        return held


@dataclass(frozen=True)
class _Read:
    """Prompts that were read together.

    Attributes:
        rows: their places in the batch.
        layers: keys and values of all tokens but the last, prompts x heads x tokens x width, layer
            by layer.
        last: M-RoPE position of the last token, 3 x prompts x 1.
    """

    rows: list[int]
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    last: torch.Tensor


def _read(
    model: Any, rows: list[int], prompts: Sequence[Prompt], device: torch.device, pad_id: int
) -> _Read:
    batch = collate(prompts, device, pad_id)
    place = positions(backbone_of(model), batch)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        batch[name] = batch[name][:, :-1]
    cache = model(
        **batch, position_ids=place[..., :-1], use_cache=True, logits_to_keep=1
    ).past_key_values
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    return _Read(rows, layers, place[..., -1:])


def _lay(cache: Cache, read: Sequence[_Read], width: int, owner: torch.Tensor) -> None:
    """Fill an empty ``cache``: row by row its owner's part of what was read, left-padded."""
    count = sum(len(part.rows) for part in read)
    for number, some in enumerate(read[0].layers):
        keys, values = (one.new_zeros(count, one.shape[1], width, one.shape[3]) for one in some)
        for part in read:
            for whole, held in zip((keys, values), part.layers[number], strict=True):
                whole[part.rows, :, width - held.shape[2] :] = held
        cache.update(keys[owner], values[owner], number)
