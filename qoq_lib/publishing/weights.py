"""The weights of a run as a folder that loads anywhere: what a model repository on the Hub holds.

A checkpoint trained in full is copied, byte for byte. An adapter (LoRA, QLoRA) is published merged
into the base it was trained on, or by itself. Whichever it is, the folder holds safetensors, the
processor with its chat template, and the source files of processor and model, so that
``AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)`` needs no package but
transformers (and peft, for an adapter).
"""

import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors.torch import load_file, save_file

from qoq_lib.model.files import (
    ADAPTER_FILE,
    ADAPTER_WEIGHTS_FILE,
    open_shard,
    open_weights,
    read_json,
)
from qoq_lib.model.loading import load_model
from qoq_lib.publishing.folders import ReleaseError, built_folder
from qoq_lib.runs import sha256_file, write_json_atomic
from qoq_lib.runs.manifest import Manifest
from qoq_lib.training.checkpoints import STAGES, run_checkpoint

Kind = Literal["auto", "full", "merged", "adapter"]

PROCESSOR_FILES = (
    *("processor_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"),
    *("processing_qoq.py", "ecg_signal.py"),
)
MODEL_FILES = (
    *("config.json", "generation_config.json"),
    *("configuration_qoq.py", "modeling_qoq.py", "ecg_encoder.py"),
)
"""Files that a checkpoint cannot be loaded without, beside its weights."""

_LEAVES = (".safetensors", ".json", ".py", ".jinja")
_STATES = ("drpo_state.json", "trainer_state.json")
_ADAPTER_CARD = "README.md"  # peft's own, with a path of this machine in it


@dataclass(frozen=True)
class Weights:
    """What ``write_weights`` wrote.

    ``kind`` is never ``auto``; ``checkpoint`` is ``trained`` or ``aligned``; ``base_model`` is the
    Hub id that an adapter is loaded onto, ``None`` for the others; ``parameters`` counts the
    numbers in the weight files.
    """

    folder: Path
    kind: Kind
    checkpoint: str
    base_model: str | None
    parameters: int
    dtypes: tuple[str, ...]


def write_weights(
    run_folder: Path, out: Path, *, kind: Kind = "auto", checkpoint: str = "", base_model: str = ""
) -> Weights:
    """Write the weights of a run to the folder ``out``.

    Args:
        run_folder: of a run that was aligned or trained.
        out: a new folder, or one that this function wrote; it changes as a whole or not at all.
        kind: ``full`` for a checkpoint trained in full, ``merged`` or ``adapter`` for one trained
            through adapters; ``auto``: ``full`` or ``merged``, whichever fits.
        checkpoint: ``trained`` or ``aligned``; empty: the last that the run finished.
        base_model: for ``adapter``: where on the Hub the checkpoint is that it was trained on,
            ``org/name`` or ``org/name@revision``; not needed where that is a Hub id already.

    Raises:
        ReleaseError: the run has no such checkpoint, it is not the one that the run recorded, a
            file of it is missing, it does not fit ``kind``, or ``out`` holds something else.
        LoadError: a weight file is damaged, or the base of an adapter is missing.
    """
    source = find_weights(Path(run_folder), checkpoint)
    kind = _kind(source, kind)
    _check_recorded(Path(run_folder), source)
    with built_folder(Path(out), "processor_config.json") as part:
        if kind == "merged":
            model, processor = load_model(source)
            model.save_pretrained(part)
            processor.save_pretrained(part)
        else:
            _copy(source, part)
        base = _release_adapter(source, part, base_model) if kind == "adapter" else None
        _check_complete(part, kind)
        parameters, dtypes = _count(part, kind)
    return Weights(Path(out), kind, source.name, base, parameters, dtypes)


def find_weights(run_folder: Path, checkpoint: str = "") -> Path:
    """The checkpoint folder of a run; ``ReleaseError`` where there is none of that name."""
    if checkpoint not in ("", *STAGES):
        raise ReleaseError(f"Unknown checkpoint {checkpoint!r}: use {' or '.join(STAGES)}.")
    found = run_checkpoint(run_folder)
    if checkpoint and found is not None:
        found = run_folder / "checkpoints" / checkpoint
    if found is None or not found.is_dir():
        wanted = f"{checkpoint} checkpoint" if checkpoint else "checkpoint"
        raise ReleaseError(
            f"Run {run_folder.name!r} holds no {wanted}: run notebook 02 or 03 with its run_id."
        )
    return found


def _kind(source: Path, kind: Kind) -> Kind:
    """``kind`` with ``auto`` settled; ``ReleaseError`` where the checkpoint is not of it."""
    if kind not in get_args(Kind):
        raise ReleaseError(f"Unknown kind of weights {kind!r}: use {', '.join(get_args(Kind))}.")
    adapter = (source / ADAPTER_FILE).is_file()
    if kind == "auto":
        return "merged" if adapter else "full"
    if adapter == (kind == "full"):
        tuned = "through adapters: use 'merged' or 'adapter'" if adapter else "in full: use 'full'"
        raise ReleaseError(f"{source} cannot be written as {kind!r}; it was trained {tuned}.")
    return kind


def _check_recorded(run_folder: Path, source: Path) -> None:
    """Raise unless the files are those whose hashes the run recorded."""
    stages = Manifest(run_folder / "run.json", run_folder.name).read()["stages"]
    prefix = f"checkpoints/{source.name}/"
    for entry in stages.values():
        for name, recorded in (entry["artefacts"] or {}).items():
            if not name.startswith(prefix):
                continue
            file = run_folder / name
            if not file.is_file() or sha256_file(file) != recorded:
                raise ReleaseError(
                    f"{name} of run {run_folder.name!r} is missing or not the file that run.json "
                    "recorded: train again, or copy the run folder again."
                )


def _copy(source: Path, part: Path) -> None:
    """The files of a checkpoint that are fit to be published; anything else is refused."""
    for file in sorted(source.iterdir()):
        if file.name in _STATES or file.name == _ADAPTER_CARD:
            continue
        if file.suffix not in _LEAVES or not file.is_file():
            raise ReleaseError(
                f"{file} is neither safetensors nor configuration nor code, so it is not "
                "published: move it out of the checkpoint."
            )
        _place(file, part / file.name)


def _place(file: Path, target: Path) -> None:
    """Weights are linked where the disk allows: a copy of 32B would be 65 GB more of the same."""
    if file.suffix == ".safetensors":
        try:
            os.link(file, target)
            return
        except OSError:  # another disk, or one without links
            pass
    shutil.copyfile(file, target)


def _release_adapter(source: Path, part: Path, base_model: str) -> str:
    """Name the adapter's base as others can find it, and its weights as every client does."""
    settings = read_json(part / ADAPTER_FILE)
    trained_on = str(settings.get("base_model_name_or_path") or "")
    name, _, revision = (base_model or trained_on).partition("@")
    if Path(name).expanduser().is_absolute() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ReleaseError(
            f"The adapter was trained on {Path(trained_on).name!r} of this machine, which nobody "
            "else has: publish that checkpoint first and give its Hub id as base_model, or publish "
            "the model as 'merged'."
        )
    settings |= {"base_model_name_or_path": name, "revision": revision or settings["revision"]}
    settings["auto_mapping"] = None  # names this package, which a reader need not have
    write_json_atomic(part / ADAPTER_FILE, settings)
    _name_for_both_clients(part / ADAPTER_WEIGHTS_FILE, settings["modules_to_save"] or [])
    return name + f"@{revision}" * bool(revision)


def _name_for_both_clients(path: Path, whole_modules: list[str]) -> None:
    """Keep the modules trained in full under two names.

    peft looks for ``ecg_encoder.norm.bias``. transformers 5.17's ``from_pretrained`` looks for
    ``ecg_encoder.modules_to_save.default.norm.bias``, and where it is missing goes on with the
    base's ECG path, after a warning.
    """
    weights = load_file(path)
    for name in list(weights):
        for module in whole_modules:
            if f".{module}." in name:
                other = name.replace(f".{module}.", f".{module}.modules_to_save.default.")
                weights[other] = weights[name].clone()
    path.unlink()  # a link to the run's own file
    save_file(weights, path, metadata={"format": "pt"})


def _check_complete(part: Path, kind: Kind) -> None:
    needed = PROCESSOR_FILES + (() if kind == "adapter" else MODEL_FILES)
    for name in needed:
        if not (part / name).is_file():
            raise ReleaseError(
                f"The checkpoint lacks {name}, so nobody else could load it: save it again with "
                "this version of the package."
            )


def _count(part: Path, kind: Kind) -> tuple[int, tuple[str, ...]]:
    if kind == "adapter":
        shard = open_shard(part / ADAPTER_WEIGHTS_FILE)
        names = [name for name in shard.keys() if ".modules_to_save." not in name]
        slices: list[Any] = [shard.get_slice(name) for name in names]
    else:
        slices = list(open_weights(part).values())
    numbers = sum(math.prod(one.get_shape()) for one in slices)
    return numbers, tuple(sorted({str(one.get_dtype()) for one in slices}))
