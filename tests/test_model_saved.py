"""A checkpoint gives the same bits wherever it is loaded, with this package or without."""

import os
import subprocess
import sys
from pathlib import Path

import foreign_process
import numpy as np
import pytest
import torch
from chats import ROWS, Tiny, row_logits
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from qoq_lib.model.configuration_qoq import QoQConfig
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.processing_qoq import QoQProcessor


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


def test_a_process_without_this_package_gives_the_same_bits(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answer.npz"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-I", foreign_process.__file__, checkpoint, out],
        cwd=tmp_path,
        env={**environment, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        check=True,
    )
    here, there = foreign_process.answer(checkpoint), np.load(out)
    assert sorted(there) == sorted(here)
    for name, values in here.items():
        assert np.array_equal(there[name], values), name
    assert len(np.unique(here["tokens"][:, -6:], axis=0)) == 2
