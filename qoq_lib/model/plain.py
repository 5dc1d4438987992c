"""A checkpoint without its ECG path, for programs that know Qwen2.5-VL and not QoQ.

    python -m qoq_lib.model.plain runs/<run_id>/checkpoints/aligned plain

llama.cpp's converter and vLLM read such a folder; it answers about images and text alone.
"""

import argparse
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from qoq_lib.model.files import open_weights, read_json
from qoq_lib.model.loading import ImageArea
from qoq_lib.runs import write_json_atomic

_NAMES = {r"^model\.visual\.": "visual.", r"^model\.language_model\.": "model."}
"""Our names of weights, and those that Qwen2.5-VL was published with."""

_ECG = ("model.ecg_encoder.", "model.ecg_projector.")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_SHARD_BYTES = 5 * 2**30


def write_plain(model_folder: Path, out: Path, pixels: ImageArea | None = None) -> Path:
    """Write the model without its ECG path to ``out``, where stock Qwen2.5-VL classes load it.

    Args:
        model_folder: a whole QoQ checkpoint.
        out: the folder to write; it must not exist yet.
        pixels: areas at which it shows images; ``None``: as saved with the checkpoint.

    Raises:
        LoadError: the weights cannot be read.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed here
    part.mkdir()
    config = read_json(model_folder / "config.json")
    kept = {name: value for name, value in config.items() if name not in ("ecg_config", "auto_map")}
    kept |= {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    kept.pop("ecg_token_id")
    write_json_atomic(part / "config.json", kept)
    for name in _TOKENIZER:
        shutil.copyfile(model_folder / name, part / name)
    processor = read_json(model_folder / "processor_config.json")["image_processor"]
    processor.pop("auto_map", None)
    if pixels is not None:
        processor["size"] = {"shortest_edge": pixels.smallest, "longest_edge": pixels.largest}
    write_json_atomic(part / "preprocessor_config.json", processor)
    _write_weights(model_folder, part)
    part.rename(out)
    return out


def without_ecg(
    parameters: Iterable[tuple[str, torch.Tensor]],
) -> Iterator[tuple[str, torch.Tensor]]:
    """The named parameters of a QoQ model that Qwen2.5-VL has as well, in order."""
    return (item for item in parameters if not item[0].startswith(_ECG))


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


def main() -> None:
    """Write the plain copy of a checkpoint folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder of a whole QoQ model")
    parser.add_argument("out", type=Path, help="folder to write; it must not exist yet")
    parser.add_argument(
        "--pixels",
        nargs=2,
        type=int,
        metavar=("SMALLEST", "LARGEST"),
        help="areas of images, where the training overrides those that the checkpoint holds",
    )
    given = parser.parse_args()
    pixels = given.pixels and ImageArea(smallest=given.pixels[0], largest=given.pixels[1])
    print(write_plain(given.checkpoint, given.out, pixels))


if __name__ == "__main__":
    main()
