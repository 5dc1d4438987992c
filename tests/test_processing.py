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

from qoq_lib.data.prompts import diagnosis_question, shuffled, to_messages
from qoq_lib.model.processing_qoq import (
    ECG_TOKEN,
    IMAGE_TOKEN,
    MODEL_LEADS,
    STANDARD_LEADS,
    EcgInputError,
    prepare_ecg,
    suppressed_token_ids,
)

RNG = np.random.default_rng(0)
SIGNAL = RNG.normal(size=(12, 5000))
PARTS: dict[str, dict[str, Any]] = {
    "image": {"type": "image", "image": Image.new("RGB", (56, 56), "grey")},
    "ecg": {"type": "ecg", "ecg": SIGNAL, "rate_hz": 500.0},
    "text": {"type": "text", "text": "What is shown?"},
}


def waves(rate_hz: float, seconds: float = 10.0, leads: int = 12) -> np.ndarray:
    """Slow sines, another frequency and offset in each lead, in millivolts."""
    time = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.stack([lead + np.sin(2 * np.pi * (1 + lead / 10) * time) for lead in range(leads)])


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
def test_chats_of_any_parts_in_any_order(tiny: tuple[Any, Any], kinds: list[list[str]]) -> None:
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


def test_media_keep_their_place_in_the_prompt(tiny: tuple[Any, Any]) -> None:
    chat = user(PARTS["text"], PARTS["ecg"], PARTS["image"])
    text = tiny[1].apply_chat_template(chat, add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\nWhat is shown?<|ecg_start|><|ecg_pad|><|ecg_end|>"
        "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert tiny[1].apply_chat_template([{"role": "system", "content": "Hi"}]) == (
        "<|im_start|>system\nHi<|im_end|>\n"
    )


def test_ecgs_are_kept_in_order(tiny: tuple[Any, Any]) -> None:
    signals = [RNG.normal(size=(8, 2500)) for _ in range(3)]
    parts = [{"type": "ecg", "ecg": signal, "rate_hz": 250} for signal in signals]
    inputs = tokenised(tiny[1], [user(parts[0], parts[1]), user(PARTS["text"]), user(parts[2])])
    assert inputs["ecg_counts"].tolist() == [2, 0, 1]
    for value, signal in zip(inputs["ecg_values"], signals, strict=True):
        assert np.array_equal(value.numpy(), prepare_ecg(signal, rate_hz=250))


def test_padding_may_be_given_directly(tiny: tuple[Any, Any]) -> None:
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


def test_an_unknown_content_type_is_named(tiny: tuple[Any, Any]) -> None:
    with pytest.raises(TemplateError, match="Unknown content type audio: use text, image or ecg"):
        tiny[1].apply_chat_template(user({"type": "audio", "audio": "heart.wav"}))


def test_more_placeholders_than_ecgs_is_refused(tiny: tuple[Any, Any]) -> None:
    processor, spoof = tiny[1], {"type": "text", "text": ECG_TOKEN}
    with pytest.raises(EcgInputError, match="Row 1 has 2 ECG placeholders but 1 ECGs"):
        tokenised(processor, [user(PARTS["text"]), user(PARTS["ecg"], spoof)])
    with pytest.raises(EcgInputError, match="Row 0 has 1 ECG placeholders but 0 ECGs"):
        tokenised(processor, [user(spoof)])
    with pytest.raises(EcgInputError, match="Row 0 has 0 ECG placeholders but 1 ECGs"):
        processor(text=["hello"], ecgs=[[PARTS["ecg"]]])


def test_a_bad_ecg_in_a_chat_is_refused(tiny: tuple[Any, Any]) -> None:
    with pytest.raises(EcgInputError, match="sampling rate .* got 0"):
        tokenised(tiny[1], [user(PARTS["ecg"] | {"rate_hz": 0})])


def test_the_saved_processor_is_the_same(tiny: tuple[Any, Any], tmp_path: Path) -> None:
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


def test_another_count_of_ecg_tokens_survives_saving(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    other = type(tiny[1])(tiny[1].image_processor, tiny[1].tokenizer, ecg_tokens=5)
    other.save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).ecg_tokens == 5


@pytest.mark.parametrize("rate_hz", [100, 250, 257, 360.0, 500, 1000])
@pytest.mark.parametrize("seconds", [4, 10, 13])
def test_other_rates_and_lengths_show_the_same_waves(rate_hz: float, seconds: float) -> None:
    values = prepare_ecg(waves(rate_hz, seconds), rate_hz=rate_hz)
    assert values.shape == (8, 2500) and values.dtype == np.float32
    known = min(2500, round(seconds * 250))
    rest = values[:, known:]
    assert not rest.any()
    picked = [STANDARD_LEADS.index(name) for name in MODEL_LEADS]
    ideal = waves(250, known / 250)[picked]
    ideal = (ideal - ideal.mean(1, keepdims=True)) / ideal.std(1, keepdims=True)
    inner = slice(50, known - 50)  # a resampling filter is blind near the ends
    assert np.abs(values[:, inner] - ideal[:, inner]).max() < 0.05
    assert np.abs(values).max() < 2


def test_leads_are_found_by_name() -> None:
    order = RNG.permutation(12)
    names = [STANDARD_LEADS[row].lower() for row in order]
    assert np.array_equal(prepare_ecg(SIGNAL[order], names), prepare_ecg(SIGNAL))


def test_eight_and_twelve_leads_give_the_same() -> None:
    eight = SIGNAL[[STANDARD_LEADS.index(name) for name in MODEL_LEADS]]
    assert np.array_equal(prepare_ecg(eight), prepare_ecg(SIGNAL))


@pytest.mark.parametrize("scale", [1e-3, 1000.0])
def test_the_unit_does_not_matter(scale: float) -> None:
    assert np.allclose(prepare_ecg(SIGNAL * scale), prepare_ecg(SIGNAL), atol=1e-5)


@pytest.mark.parametrize("rate_hz", [100, 250, 257, 500, 1000])
@pytest.mark.parametrize("level", [0.0, 1.0, -3.3, 32767.0])
def test_a_flat_lead_stays_flat(rate_hz: float, level: float) -> None:
    signal = waves(rate_hz)
    signal[0] = level
    values = prepare_ecg(signal, rate_hz=rate_hz)
    assert np.isfinite(values).all()
    assert np.abs(values[0]).max() < 1e-3


def test_an_offset_leaves_no_trace_at_the_ends() -> None:
    shifted = prepare_ecg(SIGNAL + 20.0)
    assert np.abs(shifted - prepare_ecg(SIGNAL)).max() < 1e-4


def broken(value: float) -> np.ndarray:
    signal = SIGNAL.copy()
    signal[3, 7] = value
    return signal


@pytest.mark.parametrize(
    ("signal", "leads", "message"),
    [
        (SIGNAL.T, None, r"leads x samples, got shape \(5000, 12\)"),
        (SIGNAL[0], None, r"leads x samples, got shape \(5000,\)"),
        (SIGNAL[:, :0], None, r"leads x samples, got shape \(12, 0\)"),
        (SIGNAL[None], None, "leads x samples"),
        (SIGNAL[:3], None, "3 rows named .* needed are the leads I, II, V1"),
        (SIGNAL[:11], STANDARD_LEADS[:11], "11 rows named .* one name per row"),
        (SIGNAL, STANDARD_LEADS[:11], "one name per row"),
        (broken(np.nan), None, "NaN or infinite"),
        (broken(np.inf), None, "NaN or infinite"),
    ],
)
def test_an_unreadable_ecg_is_refused(signal: np.ndarray, leads: Any, message: str) -> None:
    with pytest.raises(EcgInputError, match=message):
        prepare_ecg(signal, leads)


@pytest.mark.parametrize("rate_hz", [0, -500, 0.1, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(rate_hz: float) -> None:
    with pytest.raises(EcgInputError, match="sampling rate"):
        prepare_ecg(SIGNAL, rate_hz=rate_hz)


def row(**more: Any) -> dict[str, Any]:
    question = diagnosis_question("ecg", ["normal", "infarct"])
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
