"""What all readers share: the one error, the largest sizes, and optional libraries.

Nothing unreadable is ever replaced: every failure is a ``MediaError`` that names the file and what
to do.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from qoq_lib.runs import OneSentenceError

MAX_VALUES = 2**30
"""Most intensities of a volume, or samples of an ECG: a header that declares more is refused."""


class MediaError(OneSentenceError, ValueError):
    """A file cannot be used as image, mask or ECG; the message names it and what to do."""


class ReaderMissing(OneSentenceError, ImportError):
    """A file format whose optional library is not installed; no file of it can be read."""


@contextmanager
def decoding(what: str, path: Path, remedy: str) -> Iterator[None]:
    """Turn whatever a decoder trips over in the block into one ``MediaError`` about ``path``.

    ``what`` is the kind of file ("image"), ``remedy`` what to do about a damaged one.
    """
    try:
        yield
    except (MediaError, ReaderMissing):
        raise
    except Exception as error:  # any type, from KeyError to a decoder's own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MediaError(f"The {what} {path} cannot be read ({reason}): {remedy}.") from error


def check_there(path: Path, what: str) -> None:
    """``MediaError`` where ``path`` is no file."""
    if not path.is_file():
        raise MediaError(f"The {what} {path} is missing: put it there or unlist it.")


def check_pixels(width: int, height: int, path: Path, what: str) -> None:
    """``MediaError`` where one picture has no pixels, or more than Pillow's bomb limit."""
    limit = Image.MAX_IMAGE_PIXELS or MAX_VALUES
    if not 0 < width * height <= limit or width < 0:
        raise MediaError(
            f"The {what} {path} declares {width} x {height} pixels where 1 to {limit} are read: "
            "reduce it, or leave it out."
        )


def library(name: str, path: Path) -> Any:
    """The optional library ``name`` that reads ``path``; ``ReaderMissing`` names the extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ReaderMissing(
            f"{path} needs the library {name}: pip install 'qoq-med-repro[data]'."
        ) from error
