"""Adapters as a folder: moved with their run, damaged, on a published base."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import hub_base
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from test_loading import truncate
from test_tuning import PATH, logits

from qoq_lib.model import loading
from qoq_lib.model.from_base import base_processor
from qoq_lib.model.loading import LoadError, load_model
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.tuning import prepare
from qoq_lib.training.checkpoints import save_checkpoint


@pytest.fixture
def adapter(tiny: Any, tmp_path: Path) -> Path:
    """``checkpoints/trained``, an adapter with its base beside it; its output is not the base's."""
    folder = tmp_path / "run" / "checkpoints"
    save_checkpoint(*tiny, folder / "aligned")
    model, processor = load_model(folder / "aligned")
    adapted = get_peft_model(model, prepare(model, "lora", ["language_model", *PATH]))
    loud_adapter(adapted)
    save_checkpoint(adapted, processor, folder / "trained")
    return folder / "trained"


def loud_adapter(model: Any) -> None:
    """Adapters begin at zero: give them and the ECG path something to say."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.02)


def test_a_moved_run_still_finds_the_base_of_its_adapter(adapter: Path, tmp_path: Path) -> None:
    before = logits(*load_model(adapter))
    shutil.move(tmp_path / "run", tmp_path / "moved")
    moved = tmp_path / "moved" / "checkpoints"
    assert torch.equal(logits(*load_model(moved / "trained")), before)
    shutil.rmtree(moved / "aligned")
    with pytest.raises(LoadError, match="There is no folder .*aligned, and"):
        load_model(moved / "trained")


def keep_weights(folder: Path, words: str) -> None:
    path = folder / loading.ADAPTER_WEIGHTS_FILE
    save_file({name: w for name, w in load_file(path).items() if words in name}, path)


def change_settings(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda f: truncate(f / "adapter_model.safetensors"), "adapter_model.* is truncated"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.* is missing"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.* not valid JSON"),
        (lambda f: keep_weights(f, "lora"), "do not belong together"),
        (lambda f: change_settings(f, base_model_name_or_path=None), "names no base model"),
    ],
)
def test_a_damaged_adapter_is_refused(adapter: Path, damage: Any, sentence: str) -> None:
    damage(adapter)
    with pytest.raises(LoadError, match=sentence) as refused:
        load_model(adapter)
    assert "\n" not in str(refused.value)


def test_an_adapter_brings_the_ecg_path_to_a_published_base(tmp_path: Path) -> None:
    base, folder = hub_base(tmp_path / "base"), tmp_path / "adapter"
    processor = base_processor(str(base))
    model = QoQForConditionalGeneration.from_base(str(base), seed=5)  # another seed than loading's
    adapted = get_peft_model(model, prepare(model, "lora", ["language_model", *PATH]))
    loud_adapter(adapted)
    assert logits(adapted, processor).isfinite().all()  # bfloat16 beside float32 adapters
    save_checkpoint(adapted, processor, folder)
    loaded = load_model(folder)[0]
    assert logits(loaded, processor).isfinite().all()
    kept, path = loaded.state_dict(), model.model.ecg_encoder.modules_to_save["default"]
    for name, weight in path.state_dict().items():
        found = kept[f"model.ecg_encoder.{name}"]
        assert torch.equal(found, weight.to(found))
    change_settings(folder, modules_to_save=["ecg_projector"])
    with pytest.raises(LoadError, match="holds no ECG encoder and projector"):
        load_model(folder)
