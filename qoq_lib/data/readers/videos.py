"""Videos: MP4 and AVI, as RGB frames."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qoq_lib.data.frames import Window
from qoq_lib.data.readers.media import MediaError, check_pixels, library

_CONTAINERS = {".mp4": "mp4", ".avi": "avi"}
VIDEO_SUFFIXES = frozenset(_CONTAINERS)
_MAX_FRAMES = 100_000
_SLACK = 2


class Video:
    """A video, decoded once to count its frames and once more for those asked for.

    ``count`` is the number of frames that can be decoded. ``MediaError`` on one that ends before
    its header says, and on sizes nobody would store.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0
        with _opened(path) as (container, stream):
            for _ in self._frames(container, stream):
                self.count += 1
            stated = stream.frames
        # Encoders state a frame or two more than they write.
        if not self.count or self.count < stated - _SLACK:
            raise MediaError(
                f"The video {path} holds {self.count} frames where its header says {stated}: fetch "
                "it again, or leave it out."
            )

    def values(self, numbers: Sequence[int]) -> np.ndarray:
        """The frames ``numbers``: frames x height x width x 3, RGB in 8 bits."""
        return np.stack([np.asarray(image) for image in self.images(numbers)])

    def images(self, numbers: Sequence[int], window: Window | None = None) -> list[Image.Image]:
        """The frames ``numbers`` as RGB; a video has no intensities that a window could choose."""
        found: dict[int, Image.Image] = {}
        with _opened(self._path) as (container, stream):
            for number, frame in enumerate(self._frames(container, stream)):
                if number in numbers:
                    found[number] = frame.to_image()
                if len(found) == len(set(numbers)):
                    break
        return [found[number] for number in numbers]

    def _frames(self, container: Any, stream: Any) -> Iterator[Any]:
        for number, frame in enumerate(container.decode(stream)):
            if number == _MAX_FRAMES:
                raise MediaError(
                    f"The video {self._path} has more than {_MAX_FRAMES} frames: cut it."
                )
            check_pixels(frame.width, frame.height, self._path, "video")
            yield frame


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream.

    The demuxer is given, never guessed: a playlist under the name of a video could name any file.
    """
    av = library("av", path)
    container_format = _CONTAINERS[path.suffix.lower()]
    with path.open("rb") as file, av.open(file, format=container_format) as container:
        if not container.streams.video:
            raise MediaError(f"The video {path} has no picture: leave it out.")
        stream = container.streams.video[0]
        check_pixels(stream.width, stream.height, path, "video")
        yield container, stream
