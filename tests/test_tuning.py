"""What training may change: parts by name, in full or through adapters, kept and merged."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from peft import get_peft_model
from test_loading import prompts
from transformers.quantizers.quantizers_utils import should_convert_module

from qoq_lib.data.phantom import make_phantom
from qoq_lib.model import loading
from qoq_lib.model.loading import LoadError, load_model, load_size
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration, QoQModel
from qoq_lib.model.tuning import (
    PARTS,
    TuningError,
    check_tuning,
    parameters_by_part,
    prepare,
    quantization,
)
from qoq_lib.training import launch
from qoq_lib.training.arguments import grpo_config
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.launch import train
from qoq_lib.training.methods import load_method

SETS: list[list[Any]] = [
    list(PARTS),
    ["language_model", "ecg_encoder", "ecg_projector"],
    ["vision_tower"],
    ["merger", "ecg_projector"],
    ["language_model"],
]
PATH = ("ecg_encoder", "ecg_projector")


def taught(model: Any, processor: Any) -> set[str]:
    """Parts that a gradient reaches when the model is taught a chat with an image and an ECG."""
    inputs = prompts(processor, with_ecg=True)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    reached = [
        part
        for part, weight in parameters_by_part(model)
        if weight.grad is not None and weight.grad.abs().max() > 0
    ]
    asked = [part for part, weight in parameters_by_part(model) if weight.requires_grad]
    assert set(reached) == set(asked)
    return set(reached)


def logits(model: Any, processor: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**prompts(processor, with_ecg=True)).logits


@pytest.mark.parametrize("parts", SETS)
def test_full_tuning_teaches_exactly_the_named_parts(tiny: Any, parts: Sequence[Any]) -> None:
    model = copy.deepcopy(tiny[0])
    assert prepare(model, "full", parts) is None
    assert taught(model, tiny[1]) == set(parts)


@pytest.mark.parametrize("parts", SETS)
def test_adapters_teach_exactly_the_named_parts(tiny: Any, parts: Sequence[Any]) -> None:
    model = copy.deepcopy(tiny[0])
    model = get_peft_model(model, prepare(model, "lora", parts))
    assert torch.equal(logits(model, tiny[1]), logits(*tiny))
    assert taught(model, tiny[1]) == set(parts)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert "lora_" in name or ".modules_to_save." in name


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("path", [PATH, ["ecg_projector"]])
def test_small_steps_reach_the_ecg_path_of_a_bfloat16_model(
    tiny: Any, tuning: Any, path: list[Any]
) -> None:
    model = copy.deepcopy(tiny[0]).bfloat16()
    adapters = prepare(model, tuning, ["language_model", *path])
    model = get_peft_model(model, adapters) if adapters else model
    taught(model, tiny[1])
    trained = [
        weight
        for part, weight in parameters_by_part(model)
        if part in path and weight.requires_grad
    ]
    before = [weight.detach().clone() for weight in trained]
    torch.optim.AdamW(trained, lr=1e-6).step()
    for weight, was in zip(trained, before, strict=True):
        assert (weight != was)[weight.grad != 0].float().mean() > 0.9  # bfloat16: one in thirty


def test_every_weight_belongs_to_a_part(tiny: Any) -> None:
    counts = dict.fromkeys(PARTS, 0)
    for part, weight in parameters_by_part(tiny[0]):
        counts[part] += weight.numel()
    assert all(counts.values())
    assert sum(counts.values()) == sum(weight.numel() for weight in tiny[0].parameters())


@pytest.fixture(scope="module")
def rows() -> Dataset:
    train = make_phantom(200, seed=1).filter(lambda s: s == "train", input_columns="split")
    ecgs = train.filter(lambda d: d == "ecg", input_columns="domain").select(range(2))
    images = train.filter(lambda d: d != "ecg", input_columns="domain").select(range(2))
    return concatenate_datasets([ecgs, images])


def longer_is_better(completions: list, **_: Any) -> list[float]:
    """A reward that an untrained model's rollouts differ in."""
    return [float(len(messages[0]["content"])) for messages in completions]


@pytest.fixture
def run(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder whose ``checkpoints/aligned`` is the tiny model, with a reward that teaches."""
    monkeypatch.setattr(launch, "reward_functions", lambda _: ([longer_is_better], [1.0]))
    save_checkpoint(*tiny, tmp_path / "run" / "checkpoints" / "aligned")
    return tmp_path / "run"


def reinforced(run: Path, rows: Dataset, parts: Sequence[Any], beta: float = 0.0) -> Any:
    size = load_size("tiny").model_copy(update={"tuning": "lora", "trainable": list(parts)})
    plan = {"steps": 2, "questions_per_step": 4, "rollouts": 2, "micro_batch": 8, "beta": beta}
    size.training = size.training.model_copy(update=plan)
    start = run / "checkpoints" / "aligned"
    return train(TrainingJob(start=start, size=size, method=load_method("grpo")), rows, run)[0]


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_reinforced_adapters_change_the_named_parts_and_are_loaded_merged(
    run: Path, rows: Dataset, tiny: Any, beta: float
) -> None:
    parts = ["language_model", "merger", "ecg_projector"]
    model = reinforced(run, rows, parts, beta)
    loaded, processor = load_model(run / "checkpoints" / "trained")
    assert type(loaded) is QoQForConditionalGeneration
    changed = {
        part
        for (part, new), (_, old) in zip(
            parameters_by_part(loaded), parameters_by_part(tiny[0]), strict=True
        )
        if not torch.equal(new, old)
    }
    assert changed == set(parts)
    expected = logits(model, processor)
    assert (expected - logits(*tiny)).abs().max() > 1e-4
    assert torch.allclose(logits(loaded, processor), expected, atol=1e-5)
    assert torch.allclose(logits(model.merge_and_unload(), processor), expected, atol=1e-5)


def test_the_model_is_loaded_before_deepspeed_is_set_up(
    run: Path, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def told(name: str) -> Any:
        function = getattr(launch, name)
        return lambda *given, **named: (calls.append(name), function(*given, **named))[1]

    for name in ("load_model", "prepare", "grpo_config"):
        monkeypatch.setattr(launch, name, told(name))
    reinforced(run, rows, ["language_model"])
    assert calls == ["load_model", "prepare", "grpo_config"]


@pytest.mark.parametrize("more, is_walked", [([], False), (["vision_tower"], True)])
def test_checkpointed_layers_learn_and_a_frozen_tower_is_not_walked_backward(
    run: Path, rows: Dataset, monkeypatch: pytest.MonkeyPatch, more: list[Any], is_walked: bool
) -> None:
    seen: list[bool] = []

    def checkpointed(*given: Any) -> Any:
        config = grpo_config(*given)
        config.gradient_checkpointing = True
        return config

    def spied(self: Any, *given: Any, **named: Any) -> Any:
        output = image_features(self, *given, **named)
        seen.extend(part.requires_grad for part in output.pooler_output if torch.is_grad_enabled())
        return output

    image_features = QoQModel.get_image_features
    monkeypatch.setattr(launch, "grpo_config", checkpointed)
    monkeypatch.setattr(QoQModel, "get_image_features", spied)
    model = reinforced(run, rows, ["language_model", *more])
    assert set(seen) == {is_walked}
    learned = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    assert all(weight.any() for weight in learned)


@pytest.mark.parametrize(
    "tuning, parts, sentence",
    [
        ("lorra", ["language_model"], "Unknown tuning 'lorra': use one of full, lora, qlora"),
        ("full", ["language_model", "visoin_tower"], "Unknown trainable part 'visoin_tower'"),
        ("full", [], "No part is trainable"),
        ("lora", ["ecg_encoder"], "none of them is trainable"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tuning: str, parts: list[str], sentence: str) -> None:
    with pytest.raises(TuningError, match=sentence):
        check_tuning(tuning, parts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_qlora_needs_a_gpu() -> None:
    with pytest.raises(TuningError, match="'qlora' needs an NVIDIA GPU and bitsandbytes"):
        check_tuning("qlora", ["language_model"])


def test_qlora_quantizes_the_layers_of_the_language_model_alone(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "9")  # it looks for bitsandbytes
    settings = quantization("qlora")
    assert settings is not None and settings.quantization_method() == "nf4"
    linear = [n for n, m in tiny[0].named_modules() if isinstance(m, torch.nn.Linear)]
    skipped = settings.llm_int8_skip_modules
    quantized = {name for name in linear if should_convert_module(name, skipped)}
    assert quantized == {name for name in linear if name.startswith("model.language_model.layers.")}
    assert quantization("lora") is quantization("full") is None


def test_a_mistyped_part_in_a_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = loading.read_config("model", "7b") | {"trainable": ["language_model", "mergerr"]}
    monkeypatch.setattr(loading, "read_config", lambda *_: values)
    with pytest.raises(LoadError, match="7b.yaml: trainable.1 is 'mergerr': .*'merger'") as refused:
        load_size("7b")
    assert "\n" not in str(refused.value)
