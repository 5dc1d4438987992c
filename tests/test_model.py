"""The model: rows of any modality, each with its own media, on transformers' own classes."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

import qoq_lib.model  # noqa: F401 - registers the classes with transformers
from qoq_lib.data.phantom import make_phantom
from qoq_lib.evaluation.predict import complete, predict
from qoq_lib.model.modeling_qoq import EcgMismatchError, QoQForConditionalGeneration
from qoq_lib.model.pixels import model_view
from qoq_lib.model.processing_qoq import UNSAMPLED_TOKENS
from qoq_lib.model.tiny import tiny_model

RNG = np.random.default_rng(1)
Tiny = tuple[QoQForConditionalGeneration, Any]


def image() -> dict[str, Any]:
    pixels = RNG.integers(0, 255, (56, 56, 3), dtype=np.uint8)
    return {"type": "image", "image": Image.fromarray(pixels)}


def ecg() -> dict[str, Any]:
    beats = np.sin(np.arange(2500) * RNG.uniform(0.01, 0.5, (8, 1))) ** RNG.integers(1, 20, (8, 1))
    return {"type": "ecg", "ecg": beats, "rate_hz": 250.0}


def ask(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


ROWS: list[list[dict[str, Any]]] = [
    [image(), ask("Which diagnosis?")],
    [ecg(), ask("Normal or not? Look at every lead before you answer.")],
    [ask("No picture here.")],
    [ecg(), ask("earlier;"), ecg(), image(), ask("today")],
    [image(), image(), ecg(), ask("?")],
]


def inputs_of(processor: Any, rows: list[list[dict[str, Any]]]) -> Any:
    return processor.apply_chat_template(
        [[{"role": "user", "content": row}] for row in rows],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )


@torch.no_grad()
def last_logits(tiny: Tiny, rows: list[list[dict[str, Any]]]) -> torch.Tensor:
    return tiny[0](**inputs_of(tiny[1], rows)).logits[:, -1]


@pytest.fixture(scope="module")
def loud(tiny: Tiny) -> Tiny:
    """A copy that hears its ECGs: fresh weights whisper, and greedy answers would be the same."""
    model = copy.deepcopy(tiny[0])
    with torch.no_grad():
        model.model.ecg_encoder.embed.weight *= 100
        model.model.ecg_projector.fc2.weight *= 30
    return model, tiny[1]


def test_it_is_tiny(tiny: Tiny) -> None:
    assert sum(weight.numel() for weight in tiny[0].parameters()) <= 3_000_000


def test_the_seed_decides_the_bytes(tiny: Tiny) -> None:
    expected, same = tiny[0].state_dict(), tiny_model(0)[0].state_dict()
    assert set(same) == set(expected)
    assert all(torch.equal(same[name], expected[name]) for name in expected)
    other = tiny_model(1)[0].state_dict()
    assert not torch.equal(other["lm_head.weight"], expected["lm_head.weight"])
    name = "model.ecg_encoder.embed.weight"
    assert not torch.equal(other[name], expected[name])


def test_the_saved_model_gives_the_same_bits(tiny: Tiny, tmp_path: Path) -> None:
    tiny[0].save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(loaded) is QoQForConditionalGeneration
    assert torch.equal(last_logits((loaded, tiny[1]), ROWS), last_logits(tiny, ROWS))
    assert loaded.generation_config.suppress_tokens == tiny[0].generation_config.suppress_tokens


def test_a_row_does_not_depend_on_its_batch(loud: Tiny) -> None:
    together = last_logits(loud, ROWS)
    for row, logits in zip(ROWS, together, strict=True):
        assert torch.allclose(last_logits(loud, [row])[0], logits, atol=1e-4)
    order = [3, 0, 4, 2, 1]
    shuffled = last_logits(loud, [ROWS[index] for index in order])
    assert torch.allclose(shuffled, together[order], atol=1e-4)


def test_what_the_ecg_shows_and_where_it_stands_matters(tiny: Tiny, loud: Tiny) -> None:
    first, second = ecg(), ecg()
    chats = [[first, second, ask("?")], [second, first, ask("?")], [first, first, ask("?")]]
    logits = last_logits(loud, chats)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (logits[a] - logits[b]).abs().max() > 1e-2
    quiet = last_logits(tiny, [[first, ask("?")], [second, ask("?")]])
    assert (quiet[0] - quiet[1]).abs().max() > 1e-6


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[1:2], ROWS[2:3]])
def test_greedy_decoding_with_and_without_cache(loud: Tiny, rows: list) -> None:
    inputs = inputs_of(loud[1], rows)
    with torch.no_grad():
        cached, plain = (
            loud[0].generate(**inputs, do_sample=False, max_new_tokens=12, use_cache=use)
            for use in (True, False)
        )
    assert torch.equal(cached, plain)


def test_several_samples_of_a_row_all_see_its_ecgs(loud: Tiny) -> None:
    inputs = inputs_of(loud[1], ROWS)
    options: dict[str, Any] = {"max_new_tokens": 8}
    with torch.no_grad():
        greedy = loud[0].generate(**inputs, do_sample=False, **options)
        thrice = loud[0].generate(
            **inputs, do_sample=True, top_k=1, num_return_sequences=3, **options
        )
    assert torch.equal(thrice, greedy.repeat_interleave(3, dim=0))
    assert len({tuple(row) for row in greedy[:, -8:].tolist()}) > 1


def test_placeholders_are_never_sampled(tiny: Tiny) -> None:
    model, processor = tiny
    inputs = inputs_of(processor, ROWS * 4)
    torch.manual_seed(0)
    with torch.no_grad():
        output = model.generate(
            **inputs, do_sample=True, temperature=50.0, top_k=0, max_new_tokens=64
        )
    new = output[:, inputs["input_ids"].shape[1] :]
    assert len(new.unique()) > 300  # hot indeed
    forbidden = processor.tokenizer.convert_tokens_to_ids(list(UNSAMPLED_TOKENS))
    assert not torch.isin(new, torch.tensor(forbidden)).any()


def test_ecgs_that_do_not_fit_their_row_are_refused(tiny: Tiny) -> None:
    model, inputs = tiny[0], inputs_of(tiny[1], ROWS)
    swapped = inputs["ecg_counts"].clone()
    swapped[[1, 2]] = swapped[[2, 1]]
    with pytest.raises(EcgMismatchError, match="Row 1 .* 8 ECG placeholder tokens for 0 ECGs"):
        model(**{**inputs, "ecg_counts": swapped})
    with pytest.raises(EcgMismatchError, match="5 rows .* for 3 ECGs"):
        model(**{**inputs, "ecg_values": inputs["ecg_values"][:-1]})
    with pytest.raises(EcgMismatchError, match="5 rows came with 4"):
        model(**{**inputs, "ecg_counts": inputs["ecg_counts"][:-1]})
    with pytest.raises(EcgMismatchError, match="'ecg_counts'"):
        model(**{**inputs, "ecg_counts": None})


@pytest.mark.parametrize("values", [None, torch.empty(0, 8, 2500)])
def test_placeholders_without_any_ecg_are_refused(tiny: Tiny, values: Any) -> None:
    inputs = inputs_of(tiny[1], ROWS)
    with pytest.raises(EcgMismatchError, match="Row 1 .* no ECG was given"):
        tiny[0](**{**inputs, "ecg_values": values, "ecg_counts": None})


def test_gradients_reach_the_projector_and_the_encoder(tiny: Tiny) -> None:
    model, inputs = copy.deepcopy(tiny[0]), inputs_of(tiny[1], ROWS)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    for part in (model.model.ecg_projector, model.model.ecg_encoder, model.model.visual):
        for name, weight in part.named_parameters():
            assert weight.grad is not None and weight.grad.abs().max() > 0, name


def test_without_ecgs_it_is_qwen_bit_for_bit(tiny: Tiny) -> None:
    settings = tiny[0].config.to_dict()
    for name in ("ecg_config", "ecg_token_id", "model_type", "architectures"):
        settings.pop(name, None)
    qwen = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**settings)).eval()
    missing, extra = qwen.load_state_dict(tiny[0].state_dict(), strict=False)
    assert not missing and all(name.startswith("model.ecg_") for name in extra)
    inputs = inputs_of(tiny[1], [ROWS[0], ROWS[2], [image(), ask("and"), image()]])
    with torch.no_grad():
        assert torch.equal(qwen(**inputs).logits, tiny[0](**inputs).logits)


@pytest.fixture(scope="module")
def phantom() -> Dataset:
    rows = make_phantom(180, seed=0)
    seen: dict[str, int] = {}
    for index, domain in enumerate(rows["domain"]):
        seen.setdefault(domain, index)
    return rows.select(sorted(seen.values()))


def test_predictions_do_not_depend_on_the_batch_size(loud: Tiny, phantom: Dataset) -> None:
    tables = [
        predict(*loud, phantom, style="brief", max_new_tokens=6, batch_size=size) for size in (1, 4)
    ]
    assert len(phantom) == 9
    assert tables[0].equals(tables[1])
    assert tables[0]["id"].tolist() == phantom["id"]
    assert list(tables[0].columns)[-2:] == ["answers", "completion"]


def test_completions_hold_no_prompt_and_no_special_tokens(loud: Tiny, phantom: Dataset) -> None:
    views = [model_view(row, loud[1].image_processor) for row in phantom]
    for text in complete(*loud, views, "brief", max_new_tokens=6):
        assert "<|" not in text and "Options" not in text
