"""The vision and text part of a model in GGUF, for llama.cpp, through llama.cpp's own converter.

GGUF knows no ECG encoder: what is written answers about images and text alone. The step needs a
clone of llama.cpp, named by the environment variable ``LLAMA_CPP`` (or its
``convert_hf_to_gguf.py`` on the path), and is skipped where there is none.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from qoq_lib.model.files import open_weights, read_json
from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.runs import write_json_atomic

CONVERTER = "convert_hf_to_gguf.py"
_NAMES = {r"^model\.visual\.": "visual.", r"^model\.language_model\.": "model."}
"""Our names of weights, and those that Qwen2.5-VL was published with."""

_ECG = ("model.ecg_encoder.", "model.ecg_projector.")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_SHARD_BYTES = 5 * 2**30


def find_converter() -> Path | None:
    """llama.cpp's converter on this machine, ``None`` where there is none.

    Raises:
        ReleaseError: ``LLAMA_CPP`` names a folder without it.
    """
    if not (named := os.environ.get("LLAMA_CPP")):
        found = shutil.which(CONVERTER)
        return Path(found) if found else None
    converter = Path(named).expanduser() / CONVERTER
    if not converter.is_file():
        raise ReleaseError(f"LLAMA_CPP is {named!r}, but {converter} is missing: clone llama.cpp.")
    return converter


def write_gguf(model_folder: Path, out: Path, name: str, converter: Path) -> tuple[Path, Path]:
    """Write ``<name>-f16.gguf`` and ``mmproj-<name>-f16.gguf`` (the vision tower) into ``out``.

    Args:
        model_folder: from ``write_weights``, of kind ``full`` or ``merged``.
        out: an existing folder.
        name: of the model.
        converter: from ``find_converter``.

    Raises:
        ReleaseError: the converter stopped; the message ends with its last words.
        LoadError: the weights cannot be read.
    """
    text, vision = out / f"{name}-f16.gguf", out / f"mmproj-{name}-f16.gguf"
    with TemporaryDirectory(dir=out) as folder:
        plain = write_plain(model_folder, Path(folder) / name)
        _convert(converter, plain, text)
        _convert(converter, plain, vision, "--mmproj")
    return text, vision


def write_plain(model_folder: Path, out: Path) -> Path:
    """The model without its ECG path, as a folder that stock Qwen2.5-VL classes load."""
    out.mkdir()
    config = read_json(model_folder / "config.json")
    kept = {name: value for name, value in config.items() if name not in ("ecg_config", "auto_map")}
    kept |= {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    kept.pop("ecg_token_id")
    write_json_atomic(out / "config.json", kept)
    for name in _TOKENIZER:
        shutil.copyfile(model_folder / name, out / name)
    processor = read_json(model_folder / "processor_config.json")["image_processor"]
    processor.pop("auto_map", None)
    write_json_atomic(out / "preprocessor_config.json", processor)
    _write_weights(model_folder, out)
    return out


def _write_weights(model_folder: Path, out: Path) -> None:
    """In shards, so that no more than one of them is in memory."""
    index: dict[str, str] = {}
    waiting: dict[str, torch.Tensor] = {}
    bytes_waiting = 0
    for name, part in open_weights(model_folder).items():
        if name.startswith(_ECG):
            continue
        waiting[_published(name)] = tensor = part[:]
        bytes_waiting += tensor.numel() * tensor.element_size()
        if bytes_waiting >= _SHARD_BYTES:
            index |= _save(waiting, out, len(set(index.values())))
            waiting, bytes_waiting = {}, 0
    index |= _save(waiting, out, len(set(index.values())))
    write_json_atomic(out / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})


def _save(tensors: dict[str, torch.Tensor], out: Path, number: int) -> dict[str, str]:
    file = f"model-{number + 1:05d}.safetensors"
    if tensors:
        save_file(tensors, out / file, metadata={"format": "pt"})
    return dict.fromkeys(tensors, file)


def _published(name: str) -> str:
    for ours, theirs in _NAMES.items():
        name = re.sub(ours, theirs, name)
    return name


def _convert(converter: Path, plain: Path, target: Path, *options: str) -> None:
    call = [sys.executable, str(converter), str(plain), "--outtype", "f16"]
    call += ["--outfile", str(target), *options]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode or not target.is_file():
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ReleaseError(f"llama.cpp's {CONVERTER} could not write {target.name}: {words[-1]}")
