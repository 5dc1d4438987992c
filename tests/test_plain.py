"""A checkpoint without its ECG path is a Qwen2.5-VL."""

from pathlib import Path
from typing import Any

import pytest
import torch
from chats import ask, image, inputs_of
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from qoq_lib.model import plain
from qoq_lib.model.pixels import image_processor_class
from qoq_lib.model.plain import without_ecg, write_plain
from qoq_lib.model.processing_qoq import suppressed_token_ids
from qoq_lib.training.checkpoints import save_checkpoint


@pytest.mark.parametrize("shard_bytes", [2**40, 2**20])
def test_stock_classes_give_the_same_logits_about_images_and_text(
    loud: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    monkeypatch.setattr(plain, "_SHARD_BYTES", shard_bytes)
    save_checkpoint(*loud, tmp_path / "model")
    folder = write_plain(tmp_path / "model", tmp_path / "plain")
    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values())
    inputs = inputs_of(loud[1], [[image(), ask("What is it?")]])
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, loud[0](**inputs).logits)
    # What a trainer sends has a place there, too, and its tokenizer bans the same tokens.
    assert {name for name, _ in without_ecg(loud[0].named_parameters())} == {
        name for name, _ in model.named_parameters()
    }
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert suppressed_token_ids(tokenizer) == suppressed_token_ids(loud[1].tokenizer)


def test_the_command_writes_the_image_sizes_that_are_asked_for(
    loud: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(*loud, tmp_path / "model")
    call = ["plain", str(tmp_path / "model"), str(tmp_path / "out"), "--pixels", "3136", "12544"]
    monkeypatch.setattr("sys.argv", call)
    plain.main()
    processor = image_processor_class().from_pretrained(tmp_path / "out")
    assert (processor.size["shortest_edge"], processor.size["longest_edge"]) == (3136, 12544)
