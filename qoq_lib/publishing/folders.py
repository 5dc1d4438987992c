"""Folders that are there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qoq_lib.runs import OneSentenceError, replaced_folder


class ReleaseError(OneSentenceError, RuntimeError):
    """A release cannot be made from what is there; the message says what is missing."""


@contextmanager
def built_folder(out: Path, marker: str) -> Iterator[Path]:
    """A sibling of ``out`` that takes its place when the block ends without an error.

    On any error, Ctrl-C included, ``out`` is as it was. A folder that holds no file ``marker``
    was not built here and is never replaced.

    Raises:
        ReleaseError: ``out`` holds something else, or the disk refuses.
    """
    if out.exists() and not (out / marker).is_file() and (out.is_file() or any(os.scandir(out))):
        raise ReleaseError(
            f"{out} exists and was not built here; it is left as it is: choose another folder."
        )
    partial = out
    try:
        with replaced_folder(out) as partial:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
    except OSError as error:
        raise ReleaseError(
            f"{out} cannot be written ({error.strerror or error}): free the disk or choose another "
            "folder."
        ) from error
    finally:
        if partial != out:
            shutil.rmtree(partial, ignore_errors=True)
