"""The processor: chats with any media in any order, ECGs of any origin, and its own reload."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from PIL import Image
from transformers import AutoProcessor

from qoq_lib.data.frames import evenly_spaced_frames
from qoq_lib.data.prompts import shuffled, task_question, to_messages
from qoq_lib.model.ecg_signal import STANDARD_LEADS, EcgInputError, prepare_ecg
from qoq_lib.model.processing_qoq import (
    CHAT_TEMPLATE,
    ECG_TOKEN,
    IMAGE_TOKEN,
    ChatError,
    suppressed_token_ids,
)

Tiny = tuple[Any, Any]
RNG = np.random.default_rng(0)
SIGNAL = RNG.normal(size=(12, 5000))
PARTS: dict[str, dict[str, Any]] = {
    "image": {"type": "image", "image": Image.new("RGB", (56, 56), "grey")},
    "ecg": {"type": "ecg", "ecg": SIGNAL, "rate_hz": 500.0},
    "text": {"type": "text", "text": "What is shown?"},
}


def tokenised(processor: Any, chats: list[list[dict[str, Any]]]) -> Any:
    return processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True, "padding_side": "left"},
    )


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@settings(max_examples=30)
@given(
    st.lists(
        st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=5), min_size=1, max_size=3
    )
)
def test_chats_of_any_parts_in_any_order(tiny: Tiny, kinds: list[list[str]]) -> None:
    processor = tiny[1]
    inputs = tokenised(processor, [user(*(PARTS[kind] for kind in row)) for row in kinds])
    image, ecg = processor.tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, ECG_TOKEN])
    ids = inputs["input_ids"]
    assert ((ids == image).sum(1) == torch.tensor([4 * row.count("image") for row in kinds])).all()
    assert ((ids == ecg).sum(1) == torch.tensor([8 * row.count("ecg") for row in kinds])).all()
    counts = [row.count("ecg") for row in kinds]
    assert ("ecg_values" in inputs) == any(counts)
    if any(counts):
        assert inputs["ecg_counts"].tolist() == counts
        assert inputs["ecg_values"].shape == (sum(counts), 8, 2500)
    images = sum(row.count("image") for row in kinds)
    assert ("pixel_values" in inputs) == bool(images)
    assert not images or len(inputs["image_grid_thw"]) == images
    assert torch.equal(inputs["mm_token_type_ids"], (ids == image).to(ids))


def test_media_keep_their_place_in_the_prompt(tiny: Tiny) -> None:
    chat = user(PARTS["text"], PARTS["ecg"], PARTS["image"])
    text = tiny[1].apply_chat_template(chat, add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\nWhat is shown?<|ecg_start|><|ecg_pad|><|ecg_end|>"
        "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert tiny[1].apply_chat_template([{"role": "system", "content": "Hi"}]) == (
        "<|im_start|>system\nHi<|im_end|>\n"
    )


def test_ecgs_are_kept_in_order(tiny: Tiny) -> None:
    signals = [RNG.normal(size=(8, 2500)) for _ in range(3)]
    parts = [{"type": "ecg", "ecg": signal, "rate_hz": 250} for signal in signals]
    inputs = tokenised(tiny[1], [user(parts[0], parts[1]), user(PARTS["text"]), user(parts[2])])
    assert inputs["ecg_counts"].tolist() == [2, 0, 1]
    for value, signal in zip(inputs["ecg_values"], signals, strict=True):
        assert np.array_equal(value.numpy(), prepare_ecg(signal, rate_hz=250))


def test_padding_may_be_given_directly(tiny: Tiny) -> None:
    chats = [user(PARTS["ecg"]), user(PARTS["text"])]
    direct = tiny[1].apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        padding=True,
    )
    expected = tokenised(tiny[1], chats)
    assert set(direct) == set(expected)
    assert all(torch.equal(direct[name], expected[name]) for name in expected)


@pytest.mark.parametrize("tokens", [1, 8, 50])
def test_an_ecg_is_as_many_tokens_as_model_and_processor_agree_on(tiny: Tiny, tokens: int) -> None:
    settings = tiny[0].config.to_dict()
    settings["ecg_config"]["out_tokens"] = tokens
    model = type(tiny[0])(type(tiny[0].config)(**settings)).eval()
    processor = type(tiny[1])(tiny[1].image_processor, tiny[1].tokenizer, ecg_tokens=tokens)
    inputs = tokenised(
        processor, [user(PARTS["ecg"], PARTS["image"], PARTS["ecg"]), user(PARTS["text"])]
    )
    output = model.generate(**inputs, do_sample=False, max_new_tokens=2)
    assert output.shape[1] > inputs["input_ids"].shape[1]
    other = type(processor)(processor.image_processor, processor.tokenizer, ecg_tokens=tokens + 1)
    with pytest.raises(ValueError, match="Row 0 .* ECG placeholder tokens for 1 ECGs"):
        model(**tokenised(other, [user(PARTS["ecg"])]))


@pytest.mark.parametrize("kind", ["audio", "video"])
@pytest.mark.parametrize("tokenize", [False, True])
def test_an_unknown_content_type_is_named(tiny: Tiny, kind: str, tokenize: bool) -> None:
    chats = [user(PARTS["text"]), user(PARTS["text"], {"type": kind, "path": "heart"})]
    message = f"Row 1: unknown content type {kind!r}: use text, image or ecg; a volume or video"
    with pytest.raises(ChatError, match=message):
        tiny[1].apply_chat_template(chats, tokenize=tokenize)


def test_the_template_alone_refuses_an_unknown_content_type(tiny: Tiny) -> None:
    with pytest.raises(TemplateError, match="Unknown content type audio"):
        tiny[1].tokenizer.apply_chat_template(
            user({"type": "audio"}), chat_template=CHAT_TEMPLATE, tokenize=False
        )


def test_a_conversation_of_many_turns_generates(tiny: Tiny) -> None:
    model, processor = tiny
    frames = evenly_spaced_frames(RNG.normal(size=(9, 60, 80)))
    chat = [
        {"role": "system", "content": "Be brief."},
        *user(PARTS["ecg"], PARTS["image"], PARTS["ecg"], PARTS["text"]),
        {"role": "assistant", "content": [{"type": "text", "text": "normal"}]},
        *user(PARTS["text"], *({"type": "image", "image": frame} for frame in frames)),
        {"role": "assistant", "content": "normal"},
        *user(PARTS["ecg"], PARTS["text"]),
    ]
    inputs = tokenised(processor, [chat, user(PARTS["text"])])
    assert inputs["ecg_counts"].tolist() == [3, 0]
    assert len(inputs["image_grid_thw"]) == 5
    output = model.generate(**inputs, do_sample=False, max_new_tokens=3)
    assert len(output) == 2 and output.shape[1] > inputs["input_ids"].shape[1]


def spoof(token: str) -> dict[str, Any]:
    return {"type": "text", "text": token}


def test_more_placeholders_than_media_is_refused(tiny: Tiny) -> None:
    processor, text = tiny[1], PARTS["text"]
    for kind, token in (("ecg", ECG_TOKEN), ("image", IMAGE_TOKEN)):
        part, more = PARTS[kind], spoof(token)
        with pytest.raises(ChatError, match=f"Row 1 has 2 {kind} placeholders but 1 {kind}"):
            tokenised(processor, [user(text), user(part, more)])
        with pytest.raises(ChatError, match=f"Row 0 has 1 {kind} placeholders but 0 {kind}"):
            tokenised(processor, [user(more), user(part)])
    with pytest.raises(ChatError, match="Row 0 has 0 ecg placeholders but 1 ecgs"):
        processor(text=["hello"], ecgs=[[PARTS["ecg"]]])
    with pytest.raises(ChatError, match="The batch has 0 image placeholders but 1 images"):
        processor(text=["hello", "you"], images=[PARTS["image"]["image"]])
    with pytest.raises(ChatError, match="1 texts came with ecgs for 2 rows"):
        processor(text=["hello"], ecgs=[[], []])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_hz": 0}, "Row 1: .* sampling rate .* got 0"),
        ({"ecg": None}, "Row 1: An ECG must be leads x samples"),
        ({"ecg": "nowhere/record"}, "Row 1: The ECG nowhere/record cannot be read"),
    ],
)
def test_a_bad_ecg_in_a_chat_is_refused(tiny: Tiny, change: dict[str, Any], message: str) -> None:
    with pytest.raises(EcgInputError, match=message):
        tokenised(tiny[1], [user(PARTS["ecg"]), user(PARTS["ecg"] | change)])


def test_the_saved_processor_is_the_same(tiny: Tiny, tmp_path: Path) -> None:
    tiny[1].save_pretrained(tmp_path)
    chat = user(PARTS["image"], PARTS["ecg"], PARTS["text"])
    expected = tokenised(tiny[1], [chat])
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(tiny[1])
    assert loaded.ecg_tokens == tiny[1].ecg_tokens == 8
    found = tokenised(loaded, [chat])
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert suppressed_token_ids(loaded.tokenizer) == suppressed_token_ids(tiny[1].tokenizer)


def test_another_count_of_ecg_tokens_survives_saving(tiny: Tiny, tmp_path: Path) -> None:
    other = type(tiny[1])(tiny[1].image_processor, tiny[1].tokenizer, ecg_tokens=50)
    other.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    ids = tokenised(loaded, [user(PARTS["ecg"], PARTS["text"])])["input_ids"]
    assert (ids == loaded.tokenizer.convert_tokens_to_ids(ECG_TOKEN)).sum() == 50


def row(**more: Any) -> dict[str, Any]:
    question = task_question("diagnosis", "ecg", ["normal", "infarct"])
    return {"question": question, "report": None, "images": None, "ecg": None} | more


def test_a_row_becomes_a_chat_with_media_first() -> None:
    image = PARTS["image"]["image"]
    lead_names = list(STANDARD_LEADS)
    full = row(images=[image], ecg=SIGNAL.tolist(), ecg_leads=lead_names, ecg_rate_hz=500.0)
    (turn,) = to_messages(full | {"report": "Chest pain."}, "brief")
    assert [part["type"] for part in turn["content"]] == ["image", "ecg", "text"]
    assert turn["content"][1]["leads"] == lead_names and turn["content"][1]["rate_hz"] == 500.0
    assert turn["content"][2]["text"] == (
        "Report: Chest pain.\nECG: which diagnosis?\nOptions: normal; infarct\nAnswer in \\boxed{}."
    )
    system, turn = to_messages(row(), "reasoning")
    assert system["role"] == "system" and "<think>" in turn["content"][0]["text"]


def test_options_are_shuffled_by_seed_and_row_alone() -> None:
    options = list("abcdefgh")
    assert shuffled(options, 1, "q") == shuffled(options, 1, "q")
    assert sorted(shuffled(options, 1, "q")) == options
    assert len({tuple(shuffled(options, seed, "q")) for seed in range(5)}) > 1
    assert options == list("abcdefgh")
