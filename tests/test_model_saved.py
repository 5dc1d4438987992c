"""A checkpoint gives the same bits wherever it is loaded, with this package or without."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import foreign_process
import numpy as np
import pytest
import torch
from chats import ROWS, Tiny, row_logits
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from qoq_lib.model.configuration_qoq import QoQConfig
from qoq_lib.model.loading import load_model
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.processing_qoq import QoQProcessor
from qoq_lib.model.tuning import Part, prepare
from qoq_lib.publishing.weights import write_weights
from qoq_lib.runs import write_text_atomic
from qoq_lib.training.checkpoints import save_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def checkpoint(loud: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    for part in loud:
        part.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("trust", [False, True])
def test_the_auto_classes_give_our_classes_and_the_same_bits(
    loud: Tiny, checkpoint: Path, trust: bool
) -> None:
    config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=trust)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, trust_remote_code=trust)
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=trust)
    assert [type(it) for it in (config, model, processor)] == [
        *(QoQConfig, QoQForConditionalGeneration, QoQProcessor)
    ]
    for a, b in zip(row_logits(loud, ROWS), row_logits((model, processor), ROWS), strict=True):
        assert torch.equal(a, b)


@pytest.fixture(scope="module")
def released(loud: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The weights of a run in every form that is published, and the Hub's cache with its base."""
    run = tmp_path_factory.mktemp("runs") / "run"
    save_checkpoint(*loud, run / "checkpoints" / "aligned")
    model, processor = load_model(run / "checkpoints" / "aligned")
    parts: list[Part] = ["language_model", "ecg_encoder", "ecg_projector"]
    adapted = get_peft_model(model, prepare(model, "lora", parts))
    with torch.no_grad():
        for weight in filter(lambda weight: weight.requires_grad, adapted.parameters()):
            weight.add_(0.01)
    save_checkpoint(adapted, processor, run / "checkpoints" / "trained")
    base = run.parent / "cache" / "models--org--base"
    write_weights(run, base / "snapshots" / COMMIT, checkpoint="aligned")
    write_text_atomic(base / "refs" / "main", COMMIT)
    forms: dict[str, dict[str, Any]] = {
        "full": {"checkpoint": "aligned"},
        "merged": {"kind": "merged"},
        "adapter": {"kind": "adapter", "base_model": "org/base"},
    }
    return {"cache": run.parent / "cache", "run": run} | {
        name: write_weights(run, run.parent / name, **options).folder
        for name, options in forms.items()
    }


def test_a_process_without_this_package_gives_the_same_answers(
    released: dict[str, Path], tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_CACHE": str(released["cache"]), "HF_HUB_OFFLINE": "1"}
    forms = ("full", "merged", "adapter")
    subprocess.run(
        [sys.executable, "-I", foreign_process.__file__, *(released[name] for name in forms)],
        cwd=tmp_path,
        env={**environment, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        check=True,
    )
    here = {name: foreign_process.answer(released[name]) for name in ("full", "merged")}
    for form in forms:
        there = np.load(tmp_path / f"{form}.npz")
        for name, values in here["full" if form == "full" else "merged"].items():
            # An adapter adds its product to the base's where the merged model has the sum.
            exact = form != "adapter" or name != "logits"
            assert np.allclose(there[name], values, rtol=0, atol=0 if exact else 1e-4), (form, name)
    assert np.abs(here["full"]["logits"] - here["merged"]["logits"]).max() > 0.01
    assert len(np.unique(here["full"]["tokens"][:, -6:], axis=0)) == 2
