"""Placeholders are never sampled, not even by weights that want nothing else."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import ROWS, Tiny, inputs_of
from datasets import Dataset
from transformers import AutoModelForImageTextToText, GenerationConfig

from qoq_lib.data.phantom import make_phantom
from qoq_lib.model.loading import load_size
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.processing_qoq import UNSAMPLED_TOKENS, suppressed_token_ids, vllm_suppression
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.launch import train
from qoq_lib.training.methods import load_method


@pytest.fixture(scope="module")
def forbidden(tiny: Tiny) -> torch.Tensor:
    """The ids spelled out, not taken from the function that the package itself uses."""
    return torch.tensor(
        tiny[1].tokenizer.convert_tokens_to_ids([*UNSAMPLED_TOKENS, "<|endoftext|>"])
    )


@pytest.fixture(scope="module")
def spoilt(tiny: Tiny, forbidden: torch.Tensor) -> Any:
    """A model whose most likely next token is a placeholder, by far and everywhere."""
    model = copy.deepcopy(tiny[0])
    with torch.no_grad():
        model.lm_head.weight[forbidden] *= 1e4
        best = model(**inputs_of(tiny[1], ROWS)).logits.argmax(-1)
    assert torch.isin(best, forbidden).all()
    return model


def answers_of(tokens: torch.Tensor, prompt: int, tokenizer: Any) -> torch.Tensor:
    """The generated tokens up to each row's end, in one line; after the end comes padding."""
    new = tokens[:, prompt:]
    return new[(new == tokenizer.eos_token_id).cumsum(dim=1) == 0]


SAMPLING: list[dict[str, Any]] = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 5.0, "top_k": 0},
    {"do_sample": False, "num_beams": 3},
    {"generation_config": GenerationConfig(do_sample=True, top_p=0.9, max_new_tokens=12)},
]


@pytest.mark.parametrize("options", SAMPLING, ids=["greedy", "hot", "beams", "own settings"])
@pytest.mark.parametrize("reloaded", [False, True])
def test_generate_never_gives_a_placeholder(
    tiny: Tiny, spoilt: Any, forbidden: torch.Tensor, tmp_path: Path, options: Any, reloaded: bool
) -> None:
    model, inputs = spoilt, inputs_of(tiny[1], ROWS)
    if reloaded:
        spoilt.save_pretrained(tmp_path)
        model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    lengths = {} if "generation_config" in options else {"max_new_tokens": 12}
    torch.manual_seed(0)
    tokens = model.generate(**inputs, **options, **lengths)
    new = answers_of(tokens, inputs["input_ids"].shape[1], tiny[1].tokenizer)
    assert len(new) > 5 and not torch.isin(new, forbidden).any()


def test_the_training_loop_never_samples_a_placeholder(
    tiny: Tiny,
    spoilt: Any,
    forbidden: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate, made = QoQForConditionalGeneration.generate, []

    def recorded(model: Any, *args: Any, **inputs: Any) -> Any:
        tokens = generate(model, *args, **inputs)
        made.append(answers_of(tokens, inputs["input_ids"].shape[1], tiny[1].tokenizer))
        return tokens

    monkeypatch.setattr(QoQForConditionalGeneration, "generate", recorded)
    save_checkpoint(spoilt, tiny[1], tmp_path / "start")
    rows: Dataset = make_phantom(200, seed=1)
    rows = rows.filter(lambda s, d: s == "train" and d == "ecg", input_columns=["split", "domain"])
    size = load_size("tiny")
    plan = {"steps": 1, "questions_per_step": 2, "rollouts": 2, "micro_batch": 4}
    size.training = size.training.model_copy(update=plan)
    out = tmp_path / "run"
    out.mkdir()
    train(TrainingJob(start=tmp_path / "start", size=size, method=load_method("drpo")), rows, out)
    assert sum(len(new) for new in made) > 10
    assert not torch.isin(torch.cat(made), forbidden).any()


def test_the_vllm_form_bans_the_same_tokens_and_no_other(tiny: Tiny) -> None:
    tokenizer = tiny[1].tokenizer
    words = vllm_suppression(tokenizer)["bad_words"]
    # vLLM tokenises each word, alone and after a space, and bans what is one token either way.
    alone = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    assert alone == [[token] for token in suppressed_token_ids(tokenizer)]
    spaced = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in words]
    assert all(len(tokens) != 1 or tokens in alone for tokens in spaced)
