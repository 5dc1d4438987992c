"""The vision and text part of a model in GGUF, for llama.cpp, through llama.cpp's own converter.

GGUF knows no ECG encoder: what is written answers about images and text alone. The step needs a
clone of llama.cpp, named by the environment variable ``LLAMA_CPP`` (or its
``convert_hf_to_gguf.py`` on the path), and is skipped where there is none.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from qoq_lib.model.plain import write_plain
from qoq_lib.publishing.folders import ReleaseError

CONVERTER = "convert_hf_to_gguf.py"


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


def _convert(converter: Path, plain: Path, target: Path, *options: str) -> None:
    call = [sys.executable, str(converter), str(plain), "--outtype", "f16"]
    call += ["--outfile", str(target), *options]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode or not target.is_file():
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ReleaseError(f"llama.cpp's {CONVERTER} could not write {target.name}: {words[-1]}")
