"""The vision and text part of a model for llama.cpp: the same model, without its ECG path."""

import sys
from pathlib import Path
from typing import Any

import pytest

from qoq_lib.publishing import gguf
from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.publishing.gguf import find_converter, write_gguf
from qoq_lib.training.checkpoints import save_checkpoint

# Stands where llama.cpp's converter does and takes the same options.
CONVERTER = """
import argparse, json, pathlib
options = argparse.ArgumentParser()
options.add_argument("model", type=pathlib.Path)
options.add_argument("--outtype", choices=["f16"])
options.add_argument("--outfile", type=pathlib.Path)
options.add_argument("--mmproj", action="store_true")
given = options.parse_args()
kind = json.loads((given.model / "config.json").read_text())["model_type"]
given.outfile.write_text(f"{kind} {given.mmproj}")
"""


@pytest.fixture
def checkpoint(loud: Any, tmp_path: Path) -> Path:
    save_checkpoint(*loud, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "llama.cpp" / gguf.CONVERTER
    path.parent.mkdir()
    path.write_text(CONVERTER)
    monkeypatch.setenv("LLAMA_CPP", str(path.parent))
    return path


def test_text_and_vision_are_converted(checkpoint: Path, converter: Path, tmp_path: Path) -> None:
    found = find_converter()
    assert found == converter
    out = tmp_path / "out"
    out.mkdir()
    text, vision = write_gguf(checkpoint, out, "small", converter)
    assert sorted(path.name for path in out.iterdir()) == [vision.name, text.name]
    assert text.read_text() == "qwen2_5_vl False" and vision.read_text() == "qwen2_5_vl True"


def test_a_converter_that_stops_is_one_sentence(
    checkpoint: Path, converter: Path, tmp_path: Path
) -> None:
    converter.write_text("raise SystemExit('ValueError: no such tensor')")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ReleaseError, match="could not write small-f16.gguf: .*no such tensor"):
        write_gguf(checkpoint, out, "small", converter)
    assert not list(out.iterdir())


def test_a_machine_without_llama_cpp_has_no_converter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert find_converter() is None
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    with pytest.raises(ReleaseError, match="convert_hf_to_gguf.py is missing: clone llama.cpp"):
        find_converter()
