"""Weights are written as they were trained, whole, and with nothing of this machine in them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from test_tuning import logits

from qoq_lib.model.files import LoadError
from qoq_lib.model.loading import load_model
from qoq_lib.model.tuning import Part, prepare
from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.publishing.weights import write_weights
from qoq_lib.training.checkpoints import save_checkpoint

PARTS: list[Part] = ["language_model", "ecg_encoder", "ecg_projector"]


@pytest.fixture
def run(loud: Any, tmp_path: Path) -> Path:
    """A run aligned in full and trained through adapters."""
    folder = tmp_path / "run" / "checkpoints"
    save_checkpoint(*loud, folder / "aligned")
    model, processor = load_model(folder / "aligned")
    adapted = get_peft_model(model, prepare(model, "lora", PARTS))
    with torch.no_grad():
        for weight in filter(lambda weight: weight.requires_grad, adapted.parameters()):
            weight.add_(0.01)
    save_checkpoint(adapted, processor, folder / "trained")
    return tmp_path / "run"


def test_an_adapter_is_published_merged_unless_asked_otherwise(run: Path, tmp_path: Path) -> None:
    written = write_weights(run, tmp_path / "out")
    assert (written.kind, written.checkpoint, written.dtypes) == ("merged", "trained", ("F32",))
    model, processor = load_model(tmp_path / "out")
    assert torch.equal(logits(model, processor), logits(*load_model(run / "checkpoints/trained")))
    assert written.parameters == sum(weight.numel() for weight in model.parameters())


def test_a_full_checkpoint_is_copied_byte_for_byte(run: Path, tmp_path: Path) -> None:
    written = write_weights(run, tmp_path / "out", checkpoint="aligned")
    assert (written.kind, written.base_model) == ("full", None)
    source = run / "checkpoints" / "aligned"
    assert sorted(os.listdir(written.folder)) == sorted(os.listdir(source))
    for path in source.iterdir():
        assert (written.folder / path.name).read_bytes() == path.read_bytes()


def test_an_adapter_names_its_base_on_the_hub_and_nothing_of_this_machine(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "checkpoints" / "trained" / "adapter_model.safetensors").read_bytes()
    adapter: dict[str, Any] = {"kind": "adapter", "base_model": "org/base@v1"}
    written = write_weights(run, tmp_path / "out", **adapter)
    assert written.base_model == "org/base@v1"
    for path in written.folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    assert (run / "checkpoints" / "trained" / "adapter_model.safetensors").read_bytes() == before

    asked = []

    def fetch(name: str, revision: str | None = None) -> Path:
        asked.append((name, revision))
        return run / "checkpoints" / "aligned" if name == "org/base" else Path(name)

    monkeypatch.setattr("qoq_lib.model.loading.fetch", fetch)
    expected = logits(*load_model(run / "checkpoints" / "trained"))
    assert torch.equal(logits(*load_model(written.folder)), expected)
    assert ("org/base", "v1") in asked


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "full"}, "through adapters: use 'merged' or 'adapter'"),
    ({"kind": "merged", "checkpoint": "aligned"}, "in full: use 'full'"),
    ({"kind": "adapter"}, "'aligned' of this machine, which nobody else has"),
    ({"kind": "adapter", "base_model": "/somewhere/base"}, "which nobody else has"),
    ({"kind": "gguf"}, "Unknown kind of weights 'gguf': use auto, full, merged, adapter"),
    ({"checkpoint": "best"}, "Unknown checkpoint 'best': use trained or aligned"),
]


@pytest.mark.parametrize("asked, sentence", REFUSED, ids=[words for _, words in REFUSED])
def test_what_the_checkpoint_is_not_is_refused(
    run: Path, tmp_path: Path, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ReleaseError, match=sentence) as refused:
        write_weights(run, tmp_path / "out", **asked)
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


DAMAGE: list[tuple[Any, str]] = [
    (lambda folder: (folder / "optimizer.bin").write_bytes(b"x"), "optimizer.bin is neither"),
    (lambda folder: (folder / "modeling_qoq.py").unlink(), "lacks modeling_qoq.py"),
    (lambda folder: (folder / "chat_template.jinja").unlink(), "lacks chat_template.jinja"),
    (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
]


@pytest.mark.parametrize("damage, sentence", DAMAGE, ids=[words for _, words in DAMAGE])
def test_a_checkpoint_that_others_could_not_load_is_refused(
    run: Path, tmp_path: Path, damage: Any, sentence: str
) -> None:
    damage(run / "checkpoints" / "aligned")
    with pytest.raises((ReleaseError, LoadError), match=sentence):
        write_weights(run, tmp_path / "out", checkpoint="aligned")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ReleaseError, match="was not built here"):
        write_weights(run, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["notes.txt"]


def test_files_that_the_run_did_not_record_are_refused(run: Path, tmp_path: Path) -> None:
    file = "checkpoints/aligned/config.json"
    entry = {"status": "completed", "artefacts": {file: "0" * 64}}
    manifest = {"schema_version": 1, "run_id": "run", "stages": {"02_align_modalities": entry}}
    (run / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match=f"{file} of run 'run' is missing or not the file"):
        write_weights(run, tmp_path / "out", checkpoint="aligned")
