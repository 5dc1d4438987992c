"""Without ECGs it is Qwen2.5-VL bit for bit; with them, decoding agrees with one full pass."""

from typing import Any

import pytest
import torch
from chats import ROWS, Row, Tiny, ask, ecg, image, inputs_of
from forward_ratio import qwen_twin

WORDS = (
    "Which finding is new today and where does it lie in the second picture of the chest".split()
)


def prompt(number: int) -> Row:
    """No image to three, of several sizes, between texts of several lengths."""
    row = [ask(" ".join(WORDS[number % 5 : 3 + number % 11]))]
    for index in range(number % 4):
        row += [image(56 + 28 * (number % 2), 56), ask(WORDS[index + number % 7])]
    return row


@pytest.fixture(scope="module")
def twins(loud: Tiny) -> tuple[Any, Any, Any]:
    """Our model, Qwen's with the same weights, and the processor."""
    qwen = qwen_twin(loud[0])
    qwen.generation_config = loud[0].generation_config
    return loud[0], qwen, loud[1]


@pytest.mark.parametrize("batch", [1, 6])
@torch.no_grad()
def test_without_ecgs_it_is_qwen_bit_for_bit(twins: tuple[Any, Any, Any], batch: int) -> None:
    ours, qwen, processor = twins
    prompts, answers = [prompt(number) for number in range(24)], set()
    for start in range(0, len(prompts), batch):
        inputs = inputs_of(processor, prompts[start : start + batch])
        assert torch.equal(ours(**inputs).logits, qwen(**inputs).logits)
        texts = [
            model.generate(**inputs, do_sample=False, max_new_tokens=6) for model in (ours, qwen)
        ]
        assert torch.equal(*texts)
        answers |= {tuple(text[-6:].tolist()) for text in texts[0]}
    assert len(answers) > 5  # the weights listen to the prompt


def test_its_gradients_are_qwens_bit_for_bit(twins: tuple[Any, Any, Any]) -> None:
    ours, qwen, processor = twins
    inputs = inputs_of(processor, [prompt(1), prompt(2)])
    gradients = []
    for model in (ours, qwen):
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        weights = [model.lm_head.weight, model.model.visual.patch_embed.proj.weight]
        gradients.append(torch.autograd.grad(loss, weights))
    for mine, theirs in zip(*gradients, strict=True):
        assert mine.abs().max() > 0 and torch.equal(mine, theirs)


def test_ecg_tokens_take_positions_as_text_does(loud: Tiny) -> None:
    inputs = inputs_of(loud[1], [[ask("a"), ecg(), image(), ecg(), ask("b")], [ecg()]])
    expected, step = [], 0
    for kind in inputs["mm_token_type_ids"][0].tolist():
        seen = expected[-3:]
        if kind == 0:
            expected.append((step, step, step))
        elif not seen or seen[-1] == (step - 1,) * 3:  # an image's first patch: 2 x 2 follow
            expected += [(step, step + y, step + x) for y in (0, 1) for x in (0, 1)]
            step += 1
        else:
            continue
        step += 1
    positions, _ = loud[0].model.get_rope_index(
        *(inputs[name] for name in ("input_ids", "mm_token_type_ids", "image_grid_thw")),
        attention_mask=inputs["attention_mask"],
    )
    assert positions[:, 0].T.tolist() == [list(place) for place in expected]
    row = positions[:, 1, inputs["attention_mask"][1] == 1]
    assert torch.equal(row, torch.arange(row.shape[1]).expand(3, -1))
    with torch.no_grad():
        given, found = loud[0](**inputs, position_ids=positions).logits, loud[0](**inputs).logits
    assert torch.equal(given, found)


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[1:2], ROWS[2:3], ROWS[3:4]])
@torch.no_grad()
def test_decoding_with_and_without_cache_agrees(loud: Tiny, rows: list[Row]) -> None:
    inputs = inputs_of(loud[1], rows)
    cached, plain = (
        loud[0].generate(
            **inputs,
            do_sample=False,
            max_new_tokens=8,
            use_cache=use,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for use in (True, False)
    )
    assert torch.equal(cached.sequences, plain.sequences)
    # And both with one pass over prompt and answer, to float32 rounding.
    new = cached.sequences[:, inputs["input_ids"].shape[1] :]
    for name, filler in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        inputs[name] = torch.cat([inputs[name], torch.full_like(new, filler)], dim=1)
    whole = loud[0](**{**inputs, "input_ids": cached.sequences}).logits[:, -new.shape[1] - 1 : -1]
    for steps in (cached.logits, plain.logits):
        assert torch.allclose(torch.stack(steps, dim=1), whole, rtol=0, atol=1e-5)
