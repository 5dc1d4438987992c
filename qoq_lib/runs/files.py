"""Where runs live and how their files are written: whole or not at all."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class OneSentenceError:
    """Mixin: IPython shows the message alone, since the user's input is at fault, not the code."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class RunError(OneSentenceError, RuntimeError):
    """A run cannot start, be written or be read; the message says what, where and what to do."""


def project_root() -> Path:
    """The folder of ``pyproject.toml`` above this package, whatever the current folder is.

    Raises ``RunError`` where the package was installed without its checkout.
    """
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file():
            return folder
    raise RunError("qoq_lib was installed without its project: run 'pip install -e .' in a clone.")


def runs_root() -> Path:
    """The folder of all runs: ``QOQ_RUNS`` (relative to the project root) or ``runs``."""
    return project_root() / Path(os.environ.get("QOQ_RUNS") or "runs").expanduser()


def run_folder(run_id: str) -> Path:
    """The folder of one run; ``RunError`` unless ``run_id`` is a plain folder name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_id) or ".." in run_id:
        raise RunError(
            f"The run_id {run_id!r} is not a folder name: use up to 100 letters, digits, '.', '_' "
            "or '-', beginning with a letter or a digit and without '..'."
        )
    return runs_root() / run_id


def existing_run(run_id: str) -> Path:
    """The folder of a run that is there; ``RunError`` names the known ones where it is not."""
    folder = run_folder(run_id)
    if not folder.is_dir():
        known = sorted(path.parent.name for path in folder.parent.glob("*/run.json"))
        raise RunError(
            f"There is no run {run_id!r} in {folder.parent}: give one of the runs there "
            f"({', '.join(known) or 'none yet'}), or run notebook 03 first."
        )
    return folder


def make_folder(path: Path) -> Path:
    """Create ``path`` with its parents; ``RunError`` when the disk refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"Cannot create the folder {path} ({error.strerror}): set QOQ_RUNS to a folder you may "
            "write to."
        ) from error
    return path


def write_bytes_atomic(path: Path, data: bytes) -> Path:
    """Write ``data`` beside ``path`` and rename, so that ``path`` is never half written.

    Raises ``RunError`` when the disk refuses; an earlier file of that name is then untouched.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(
            f"Cannot write {path} ({error.strerror}): free the disk or set QOQ_RUNS to a folder "
            "you may write to."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text_atomic(path: Path, text: str) -> Path:
    """``write_bytes_atomic`` of UTF-8 text."""
    return write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: Path, value: Any) -> Path:
    """``write_bytes_atomic`` of indented JSON; NaN is refused with ``ValueError``."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return write_text_atomic(path, text + "\n")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """The name of a sibling of ``out``, made in the block, that takes its place if that succeeds.

    What an earlier call left between its two renames, killed there, is put back first. Raises
    ``OSError`` where the disk refuses; ``out`` is then as it was.
    """
    partial, old = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.old")
    if old.exists() and not out.exists():
        old.rename(out)
    yield partial
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
