"""Who provides the adapters: peft, or unsloth on a GPU for questions with images and text.

This module imports nothing heavy: unsloth patches transformers, peft and TRL while it is imported
and has to come before all of them, so a notebook calls ``start_backend`` before its other imports,
and ``launch``, where it is run as a program, ``start_backend_of``.
What it replaces in TRL's trainer, and what of ours survives, is ``with_unsloth``'s subject.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import yaml

from qoq_lib.runs import OneSentenceError

if TYPE_CHECKING:
    from datasets import Dataset

Backend = Literal["peft", "unsloth"]
PATCHED = ("transformers", "peft", "trl")


class BackendError(OneSentenceError, RuntimeError):
    """The backend that was asked for does not exist or cannot work here."""


def start_backend(name: str) -> None:
    """Make ``name`` the backend of this process: nothing for peft, the import for unsloth.

    Raises:
        BackendError: unknown name; or unsloth without a GPU, not installed, or asked for after
            something that it has to patch.
    """
    if name not in get_args(Backend):
        raise BackendError(f"Unknown backend {name!r}: use one of {', '.join(get_args(Backend))}.")
    if name == "peft" or "unsloth" in sys.modules:
        return
    if not _gpu_is_visible():
        raise BackendError(
            "backend 'unsloth' needs an NVIDIA GPU and none is visible: use backend 'peft' here."
        )
    early = [module for module in PATCHED if module in sys.modules]
    if early:
        raise BackendError(
            f"backend 'unsloth' must be started before {early[0]} is imported: restart the kernel "
            "and call start_backend first."
        )
    try:
        import_module("unsloth")
    except (ImportError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BackendError(
            f"backend 'unsloth' cannot be imported ({reason}): install requirements/gpu.txt, or "
            "use backend 'peft'."
        ) from error


def start_backend_of(arguments: Sequence[str]) -> None:
    """``start_backend`` for the job of ``--config`` among a command's arguments.

    Of what is wrong with them or with the file nothing is said: whoever reads the job says it.

    Raises:
        BackendError: as ``start_backend``.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", type=Path, default=Path())
    try:
        values = yaml.safe_load(parser.parse_known_args(arguments)[0].config.read_text("utf-8"))
    except (OSError, yaml.YAMLError):
        return
    if isinstance(values, dict) and values.get("backend") in get_args(Backend):
        start_backend(values["backend"])


def refuse_ecgs(backend: str, rows: "Dataset") -> None:
    """Raise ``BackendError`` where unsloth is to train on assembled rows of which any holds an ECG.

    Its loss hands the model the fields of images and video alone, so an ECG would be dropped there
    without a word and the model trained to answer from the text around it.
    """
    if backend != "unsloth":
        return
    signals = rows.select_columns("ecg").with_format("arrow")
    count = sum(len(part["ecg"]) - part["ecg"].null_count for part in signals.iter(1000))
    if count:
        raise BackendError(
            f"backend 'unsloth' cannot train on ECGs, its loss would drop them, and {count:,} of "
            f"the {len(rows):,} rows hold one: use backend 'peft', or assemble data without ECGs."
        )


def _gpu_is_visible() -> bool:
    import torch  # unsloth does not mind it; seconds that only this question needs

    return torch.cuda.is_available()
