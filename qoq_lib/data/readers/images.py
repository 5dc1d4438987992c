"""One way to images for every file: a picture is one, a volume or a video a few frames."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qoq_lib.boxes import lesions_of
from qoq_lib.data.frames import FRAMES, Window, frame_numbers
from qoq_lib.data.readers.dicom import DICOM_SUFFIXES, Dicom
from qoq_lib.data.readers.media import MediaError, check_there, decoding
from qoq_lib.data.readers.pictures import (
    PICTURE_SUFFIXES,
    is_plain,
    open_picture,
    png_bytes,
    read_picture,
)
from qoq_lib.data.readers.videos import VIDEO_SUFFIXES, Video
from qoq_lib.data.readers.volumes import VOLUME_SUFFIXES, Volume

IMAGE_SUFFIXES = PICTURE_SUFFIXES | DICOM_SUFFIXES | VOLUME_SUFFIXES | VIDEO_SUFFIXES
Crop = tuple[int, int, int, int]
"""``x1, y1, x2, y2`` of a part of an image, in its pixels, ``x2`` and ``y2`` exclusive."""


@dataclass(frozen=True)
class View:
    """What is shown of a file.

    ``window`` is what a CT is seen through; without it a DICOM's own, else the range of the values.
    ``frames`` are numbers of slices or video frames, from 0; without them four evenly spaced ones
    (all, where there are fewer). ``crop`` is a part of each image.
    """

    window: Window | None = None
    frames: tuple[int, ...] = ()
    crop: Crop | None = None


WHOLE = View()


@dataclass(frozen=True)
class StoredImage:
    """An image, the file whose own bytes are it if there is one, and its place in its file.

    It is ``frame`` (from 0) of ``frames``; both are of a volume or video, 0 and 1 for a picture.
    """

    image: Image.Image
    file: Path | None = None
    frame: int = 0
    frames: int = 1

    def field(self, embed: bool) -> dict[str, Any]:
        """The cell of a table: bytes, or with ``embed=False`` the file's path where there is one.

        PNG bytes where the image has no file of its own.
        """
        if self.file is None:
            return {"bytes": png_bytes(self.image), "path": None}
        if embed:
            return {"bytes": self.file.read_bytes(), "path": None}
        return {"bytes": None, "path": str(self.file.resolve())}


def suffix_of(path: Path) -> str:
    """The suffix in lower case, ``.nii.gz`` as a whole."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def read_images(path: Path, view: View = WHOLE) -> list[Image.Image]:
    """The images of a file in 8 bits, mode ``"L"`` or ``"RGB"``; what it is, its suffix says.

    One image for a picture or a DICOM of one frame; of a volume, a video or a DICOM of several, the
    frames of ``view``. Compressed DICOM, NIfTI, MetaImage and videos need the extra ``data``.

    Raises:
        MediaError: a missing, damaged or absurdly large file, or a frame or part it does not have.
        ReaderMissing: the extra is not installed.
    """
    return [stored.image for stored in stored_images(path, view)]


def stored_images(path: Path, view: View = WHOLE) -> list[StoredImage]:
    """``read_images`` with the file itself where every viewer reads it: an 8-bit JPEG or PNG.

    The image is decoded in full all the same, so that a damaged file is refused here and not in the
    middle of a training run.
    """
    if not _has_frames(path):
        if view.crop:
            return [StoredImage(_part(read_picture, path, view.crop))]
        image = read_picture(path)
        return [StoredImage(image, path if is_plain(path) else None)]
    with _decoding(path):
        opened = _open(path)
        numbers = _numbers(opened.count, view.frames, path)
        images = opened.images(numbers, view.window)
    return [
        StoredImage(_cropped(image, view.crop, path), None, number, opened.count)
        for number, image in zip(numbers, images, strict=True)
    ]


def read_mask(
    paths: Sequence[Path],
    images: Sequence[StoredImage],
    values: Collection[int] = (),
    crop: Crop | None = None,
) -> Image.Image | None:
    """What the masks at ``paths`` mark in any of the ``images``: ``"L"``, 0 background, 255 lesion.

    ``images`` are of one file; ``None`` where there are no paths. Lesion is a pixel whose stored
    value is one of ``values``; without them, one above half of a picture's own maximum, which reads
    0/1, 0/255 and smoothed edges alike, and any but 0 in a volume, whose values number structures.
    ``MediaError`` on an unreadable mask or one of another size.
    """
    if not paths:
        return None
    union = np.zeros((images[0].image.height, images[0].image.width), dtype=bool)
    for path in paths:
        for frame in _mask_values(path, images, crop):
            if frame.shape != union.shape:
                raise MediaError(
                    f"The mask {path} is {frame.shape[1]} x {frame.shape[0]} pixels and its image "
                    f"{union.shape[1]} x {union.shape[0]}: give a mask of the image's size."
                )
            union |= _is_lesion(frame, values, numbered=_has_frames(path))
    return Image.fromarray(union.astype(np.uint8) * 255)


def read_label_map(path: Path) -> np.ndarray:
    """The values of a mask that tells several classes apart: rows x columns, as stored.

    ``MediaError`` on an unreadable mask and on one with colours instead of values.
    """
    values = np.asarray(open_picture(path))
    if values.ndim != 2:
        raise MediaError(f"The mask {path} is in colour: give one whose pixels are class numbers.")
    return values


def marked_frames(masks: Sequence[Path], values: Collection[int] = ()) -> tuple[int, ...]:
    """Four evenly spaced ones of the slices that the mask volumes mark; none where none is marked.

    Nor where the masks are no volumes. ``values`` as for ``read_mask``.
    """
    marked: set[int] = set()
    for path in masks:
        if suffix_of(path) in VOLUME_SUFFIXES:
            with _decoding(path):
                volume = Volume(path)
                slices = range(volume.count)
                marked |= {n for n in slices if _is_lesion(volume.values([n]), values, True).any()}
    found = sorted(marked)
    return tuple(found[at] for at in _numbers(len(found), (), masks[0])) if found else ()


def boxes_of(mask: Image.Image) -> list[list[int]]:
    """Tight boxes of the lesions of ``mask`` (non-zero pixels), top to bottom, without specks."""
    return [
        [x, y, x + lesion.shape[1], y + lesion.shape[0]]
        for lesion, (x, y) in lesions_of(np.asarray(mask) > 0)
    ]


def _mask_values(path: Path, images: Sequence[StoredImage], crop: Crop | None) -> np.ndarray:
    """The images' frames of a mask as stored, frames x height x width; brightest of channels."""
    if not _has_frames(path):
        mask = _part(open_picture, path, crop) if crop else open_picture(path)
        plain = mask.convert("RGB") if mask.mode == "RGBA" else mask
        values, count = np.asarray(plain, dtype=np.float32)[None], 1
    else:
        with _decoding(path):
            opened = _open(path)
            count = opened.count
            values = opened.values([min(one.frame, count - 1) for one in images])
        if crop:
            values = values[:, crop[1] : crop[3], crop[0] : crop[2]]
    if count != images[0].frames:
        raise MediaError(
            f"The mask {path} has {count} frames and its image {images[0].frames}: give a mask of "
            "the image's size."
        )
    return values.max(axis=3) if values.ndim == 4 else values


def _is_lesion(frame: np.ndarray, values: Collection[int], numbered: bool) -> np.ndarray:
    if values:
        return np.isin(frame, list(values))
    return frame > (0 if numbered else frame.max() / 2)


def _has_frames(path: Path) -> bool:
    """Whether the file is read by frames: everything but a plain picture."""
    return suffix_of(path) in IMAGE_SUFFIXES - PICTURE_SUFFIXES


def _open(path: Path) -> Dicom | Volume | Video:
    suffix = suffix_of(path)
    if suffix in DICOM_SUFFIXES:
        return Dicom(path)
    return Volume(path) if suffix in VOLUME_SUFFIXES else Video(path)


def _decoding(path: Path) -> AbstractContextManager[None]:
    check_there(path, "image")
    return decoding("image", path, "fetch it again, or leave it out")


def _numbers(count: int, frames: Sequence[int], path: Path) -> list[int]:
    if not frames:
        return frame_numbers(count, min(count, FRAMES))
    beyond = [number for number in frames if not 0 <= number < count]
    if beyond:
        raise MediaError(f"{path} has {count} frames and no frame {beyond[0]}: correct the list.")
    return list(frames)


@lru_cache(maxsize=2)
def _kept(read: Callable[[Path], Image.Image], path: Path, _changed_ns: int) -> Image.Image:
    """An image and its mask, remembered: the parts of one image are asked for in a row."""
    return read(path)


def _part(read: Callable[[Path], Image.Image], path: Path, crop: Crop) -> Image.Image:
    changed_ns = path.stat().st_mtime_ns if path.is_file() else 0
    return _cropped(_kept(read, path, changed_ns), crop, path)


def _cropped(image: Image.Image, crop: Crop | None, path: Path) -> Image.Image:
    if crop is None:
        return image
    if not (0 <= crop[0] < crop[2] <= image.width and 0 <= crop[1] < crop[3] <= image.height):
        raise MediaError(
            f"{path} has {image.width} x {image.height} pixels and no part {list(crop)}: give a "
            "mask and an image of one size."
        )
    return image.crop(crop)
