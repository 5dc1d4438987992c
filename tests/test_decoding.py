"""Rollouts do not depend on how their prompts are read and in what cache they are decoded."""

import copy
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import CompileConfig, GenerationConfig
from transformers.integrations import sdpa_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from qoq_lib.data.phantom import make_phantom
from qoq_lib.data.prompts import to_messages
from qoq_lib.model.pixels import model_view
from qoq_lib.training.generation.attention import shared_heads
from qoq_lib.training.generation.decoding import CACHE_STEP, Decoder, buckets
from qoq_lib.training.generation.sampling import rollout_keys
from qoq_lib.training.sharing import Prompt, collate, read_prompts

CPU = torch.device("cpu")
GREEDY = GenerationConfig(max_new_tokens=8, do_sample=False, eos_token_id=1, pad_token_id=0)
SAMPLED = GenerationConfig(max_new_tokens=8, do_sample=True, top_k=0, pad_token_id=0)


@pytest.fixture(scope="module")
def prompts(tiny: Any) -> list[Prompt]:
    """An ECG with a report, one and several images, and no media; no two of one length."""
    _, processor = tiny
    rows: Dataset = make_phantom(200, seed=1)
    names = ("ecg", "chest_xray", "pathology")
    views = [
        model_view(next(row for row in rows if row["domain"] == name), processor.image_processor)
        for name in names
    ]
    chats: list[Any] = [to_messages(view, "brief") for view in views]
    picture = {"type": "image", "image": views[1]["images"][0]}
    chats.append([{"role": "user", "content": [picture] * 3}])
    chats.append([{"role": "user", "content": [{"type": "text", "text": "Options: a; b"}]}])
    read = read_prompts(processor, chats, range(len(chats)))
    assert len({len(prompt.input_ids) for prompt in read}) == len(read)
    return read


def rollouts(decoder: Decoder, model: Any, prompts: Sequence[Prompt], config: Any) -> torch.Tensor:
    rows = [prompt for prompt in prompts for _ in range(3)]
    return decoder.generate(model, rows, config, keys(len(rows)))


def keys(rows: int) -> torch.Tensor:
    return rollout_keys(0, 0, 0, rows, CPU)


def stopping(tokens: torch.Tensor, config: GenerationConfig) -> GenerationConfig:
    """``config`` with an end token that ends some of ``tokens`` early, not all of them."""
    early = copy.copy(config)
    early.eos_token_id = int(tokens[:, 2].mode().values)
    ended = (tokens[:, :-1] == early.eos_token_id).any(dim=1)
    assert ended.any() and not ended.all()
    return early


def test_greedy_continuations_equal_those_of_the_models_own_generate(
    loud: Any, prompts: list[Prompt]
) -> None:
    model, _ = loud
    batch = collate(prompts, CPU, 0)
    alone = model.generate(**batch, generation_config=GREEDY)[:, batch["input_ids"].shape[1] :]
    copied = rollouts(Decoder(CPU, 0), model, prompts, GREEDY)
    assert torch.equal(copied, alone.repeat_interleave(3, dim=0)[:, : copied.shape[1]])


def test_rollouts_in_any_order_get_their_own_prompts(loud: Any, prompts: list[Prompt]) -> None:
    model, _ = loud
    mixed = [prompts[index] for index in (2, 0, 2, 1, 0)]
    made = Decoder(CPU, 0).generate(model, mixed, GREEDY, keys(5))
    each = [Decoder(CPU, 0).generate(model, [prompt], GREEDY, keys(1))[0] for prompt in mixed]
    assert torch.equal(made, torch.stack(each))


def test_sampled_continuations_of_a_prompt_differ(tiny: Any, prompts: list[Prompt]) -> None:
    rows = rollouts(Decoder(CPU, 0), tiny[0], prompts[:1], SAMPLED)
    assert len({tuple(row) for row in rows.tolist()}) == 3


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_static_cache_gives_the_tokens_of_a_growing_one(
    loud: Any, prompts: list[Prompt], config: GenerationConfig
) -> None:
    model, _ = loud
    growing, static = Decoder(CPU, 0), Decoder(CPU, 0, static=True)
    expected = rollouts(growing, model, prompts, config)
    assert torch.equal(rollouts(static, model, prompts, config), expected)
    # The cache is taken up again: by other prompts of as many rows, and with early ends.
    turned = prompts[::-1]
    again = rollouts(growing, model, turned, config)
    assert torch.equal(rollouts(static, model, turned, config), again)
    early = stopping(expected, config)
    ended = rollouts(growing, model, prompts, early)
    assert torch.equal(rollouts(static, model, prompts, early), ended)


def test_a_static_cache_is_kept_and_grows_no_further_than_needed(
    loud: Any, prompts: list[Prompt]
) -> None:
    decoder = Decoder(CPU, 0, static=True)
    made = []
    for some, tokens in ((prompts[:2], 4), (prompts[2:4], 8), (prompts[:2], 300), (prompts[:2], 8)):
        config = GenerationConfig(max_new_tokens=tokens, max_time=0, do_sample=False)
        rollouts(decoder, loud[0], some, config)
        made.append(decoder._held[6])
    assert made[0] is made[1] and made[2] is made[3] and made[1] is not made[2]
    assert [cache.get_max_length() for cache in made] == [256, 256, 512, 512]
    width = max(len(prompt.input_ids) for prompt in prompts[:2])
    for tokens in range(600, 1000, 100):  # each a little more than the last
        rollouts(decoder, loud[0], prompts[:2], GenerationConfig(max_new_tokens=tokens, max_time=0))
        assert decoder._held[6].get_max_length() - (width + tokens) < CACHE_STEP


def compiled(config: GenerationConfig) -> GenerationConfig:
    """``config``, its decoding step compiled on a CPU, too."""
    config = copy.copy(config)
    # ``fullgraph`` raises where the step would fall into pieces, which no CUDA graph could hold.
    config.compile_config = CompileConfig(fullgraph=True, backend="aot_eager", mode="default")
    config.compile_config._compile_all_devices = True
    return config


def test_the_compiled_step_is_one_graph_and_gives_the_same_tokens(
    loud: Any, prompts: list[Prompt]
) -> None:
    model = copy.deepcopy(loud[0])
    expected = rollouts(Decoder(CPU, 0), model, prompts, SAMPLED)
    config = compiled(SAMPLED)
    decoder = Decoder(CPU, 0, static=True)
    assert torch.equal(rollouts(decoder, model, prompts, config), expected)
    with torch.compiler.set_stance("fail_on_recompile"):
        again = rollouts(decoder, model, prompts[::-1], config)
    assert torch.equal(again, rollouts(Decoder(CPU, 0), model, prompts[::-1], SAMPLED))


def test_checkpointing_between_rollouts_compiles_no_step_anew(
    loud: Any, prompts: list[Prompt]
) -> None:
    model = copy.deepcopy(loud[0])
    decoder, config = Decoder(CPU, 0, static=True), compiled(SAMPLED)
    embedding = model.get_input_embeddings()
    model.gradient_checkpointing_enable()
    made = []
    for stance in ("default", "fail_on_recompile", "fail_on_recompile"):
        model.gradient_checkpointing_disable()  # as TRL does around each generation
        with torch.compiler.set_stance(stance):
            made.append(rollouts(decoder, model, prompts, config))
        model.gradient_checkpointing_enable()
        assert len(embedding._forward_hooks) == 1
        assert embedding(torch.tensor([[5]])).requires_grad
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_heads_that_share_keys_attend_as_in_the_stock_attention(tokens: int, masked: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(3, 28, tokens, 16, generator=draw)
    key, value = torch.randn(2, 3, 4, 40, 16, generator=draw)
    mask = torch.rand(3, 1, tokens, 40, generator=draw) > 0.3 if masked else None
    layer: Any = SimpleNamespace(num_key_value_groups=7, is_causal=True)
    expected = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.3)[0]
    found = shared_heads(layer, query, key, value, mask, scaling=0.3)[0]
    assert found.shape == expected.shape and (found - expected).abs().max() <= 1e-5


def test_decoding_copies_no_keys_for_the_heads_that_share_them(
    loud: Any, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loud[0]
    text = model.config.text_config
    assert text.num_key_value_heads < text.num_attention_heads
    expected = rollouts(Decoder(CPU, 0), model, prompts, SAMPLED)
    widths = []
    stock = sdpa_attention.repeat_kv
    monkeypatch.setattr(
        sdpa_attention,
        "repeat_kv",
        lambda keys, times: widths.append(keys.shape[2]) or stock(keys, times),
    )
    assert torch.equal(rollouts(Decoder(CPU, 0, static=True), model, prompts, SAMPLED), expected)
    assert widths and max(widths) < CACHE_STEP  # the prompts' alone
    assert text._attn_implementation == "sdpa"


@pytest.mark.parametrize("is_compiled", [False, True])
def test_weights_trained_in_float32_under_autocast_fill_a_static_cache(
    loud: Any, prompts: list[Prompt], is_compiled: bool
) -> None:
    model = copy.deepcopy(loud[0])
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)  # as accelerate does
    decoder = Decoder(CPU, 0, static=True)
    made = rollouts(decoder, model, prompts, compiled(GREEDY) if is_compiled else GREEDY)
    layer = decoder._held[len(made)].layers[0]
    assert layer.keys.dtype == layer.values.dtype == torch.bfloat16
    # Rounding moves an answer now and then, and what follows of it.
    expected = rollouts(Decoder(CPU, 0), loud[0], prompts, GREEDY)
    assert (made[:, 0] == expected[:, 0]).float().mean() > 0.5


def test_adapters_take_part_in_a_static_cache(loud: Any, prompts: list[Prompt]) -> None:
    model = get_peft_model(
        copy.deepcopy(loud[0]),
        LoraConfig(target_modules=["down_proj"], lora_alpha=512, init_lora_weights=False),
    )
    expected = rollouts(Decoder(CPU, 0), model, prompts, SAMPLED)
    assert torch.equal(rollouts(Decoder(CPU, 0, static=True), model, prompts, SAMPLED), expected)
    assert not torch.equal(rollouts(Decoder(CPU, 0), loud[0], prompts, SAMPLED), expected)


@pytest.mark.parametrize("static", [False, True])
def test_buckets_change_no_token(loud: Any, prompts: list[Prompt], static: bool) -> None:
    model, _ = loud
    together = Decoder(CPU, 0, static=static, bucket_cost=math.inf)
    expected = rollouts(together, model, prompts, SAMPLED)
    widths = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    made = rollouts(Decoder(CPU, 0, static=static, bucket_cost=0), model, prompts, SAMPLED)
    hook.remove()
    assert sorted(width for width in widths if width > 1) == sorted(
        len(prompt.input_ids) - 1 for prompt in prompts
    )
    assert torch.equal(made, expected)


def test_prompts_of_about_one_length_are_read_at_once() -> None:
    assert buckets([100, 130, 90, 128]) == [[0, 1, 2, 3]]
    assert buckets([3000, 700, 690, 3100, 60]) == [[1, 2, 4], [0, 3]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 60))
def test_buckets_hold_every_prompt_once_at_the_lowest_cost(lengths: list[int], cost: int) -> None:
    def price(groups: Sequence[Sequence[int]]) -> int:
        widest = [max(lengths[i] for i in group) for group in groups]
        return sum(len(g) * w + cost for g, w in zip(groups, widest, strict=True))

    found = buckets(lengths, cost)
    assert sorted(i for group in found for i in group) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    every = []
    for cuts in range(2 ** (len(order) - 1)):
        marks = [i for i in range(1, len(order)) if cuts >> (i - 1) & 1]
        edges = zip([0, *marks], [*marks, len(order)], strict=True)
        every.append(price([order[a:b] for a, b in edges]))
    assert price(found) == min(every)
