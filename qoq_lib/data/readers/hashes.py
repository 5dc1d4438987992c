"""Two fingerprints of a file: what it holds byte for byte, and what it looks like."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from qoq_lib.data.readers.ecg import SIGNAL_SUFFIXES, header_path
from qoq_lib.data.readers.media import MediaError

_SIDE = 8


def content_hash(paths: Sequence[Path], ecg: Path | None = None) -> tuple[str, ...]:
    """SHA-256 of each file in ``paths``, and of the ECG's signal files; ``MediaError`` if missing.

    The ECG's header is left out: the same recording under two names has two headers.
    """
    files = list(paths)
    if ecg is not None:
        header = header_path(ecg)
        signals = [header.with_suffix(end) for end in SIGNAL_SUFFIXES]
        files += [file for file in signals if file.is_file()] or [header]
    return tuple(_file_hash(file) for file in files)


def look_of(image: Image.Image) -> int:
    """A 64-bit difference hash: is each cell of an 8 x 9 grey thumbnail darker than the next?

    It survives re-encoding, rescaling and a change of brightness; copies differ in few bits.
    """
    small = image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


def _file_hash(path: Path) -> str:
    try:
        found = path.stat()
        return _hash_of(path, found.st_size, found.st_mtime_ns)
    except FileNotFoundError as error:
        raise MediaError(f"{path} is listed but missing: put it there or unlist it.") from error
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}): check the file.") from error


@lru_cache(maxsize=256)
def _hash_of(path: Path, _size: int, _changed_ns: int) -> str:
    """Remembered, as the parts of one image are listed in a row."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
