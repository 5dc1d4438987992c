"""Reading one image, mask or ECG from disk, or saying in one sentence why it cannot be read.

Nothing unreadable is ever replaced: every failure is a ``MediaError`` that names the file and what
to do. Boxes are ``[x1, y1, x2, y2]`` in pixels, origin top left, ``x2`` and ``y2`` exclusive.
"""

import hashlib
import io
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import wfdb
from PIL import Image, ImageOps
from scipy import ndimage

from qoq_lib.runs import OneSentenceError

Image.init()  # Pillow knows TIFF and WebP by name only once it has loaded all its plugins
IMAGE_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".tif", ".tiff", ".webp")
)
Crop = tuple[int, int, int, int]
"""``x1, y1, x2, y2`` of a part of an image, in its pixels, ``x2`` and ``y2`` exclusive."""
_SIGNAL_SUFFIXES = (".mat", ".dat")
_LEADS = {
    lead.lower(): lead
    for lead in ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
}
_MILLIVOLTS = {"mv": 1.0, "uv": 1e-3, "v": 1e3}


class MediaError(OneSentenceError, ValueError):
    """A file cannot be used as image, mask or ECG; the message names it and what to do."""


@dataclass(frozen=True)
class Ecg:
    """One recording.

    ``signal`` is float32 millivolts, leads x samples, its rows named by ``leads``; ``rate_hz`` is
    samples a second; ``comments`` are the header's comment lines without their ``#``.
    """

    signal: np.ndarray
    leads: list[str]
    rate_hz: float
    comments: list[str]


def read_image(path: Path) -> Image.Image:
    """The image in 8 bits, mode ``"L"`` or ``"RGB"``, turned upright as its EXIF tag says.

    Deeper grey images are scaled from their own minimum and maximum to 0-255. Transparent pixels
    are laid on black. ``MediaError`` on a missing, truncated, multi-page, unreadable or absurdly
    large file (Pillow's decompression-bomb limit).
    """
    image = _opened(path)
    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bit(image, path)
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode in ("RGBA", "PA", "P", "RGBa"):
        upright = image.convert("RGBA")
        black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, upright).convert("RGB")
    return image.convert("RGB")


def image_bytes(path: Path, crop: Crop | None = None) -> tuple[bytes, tuple[int, int]]:
    """The file's own bytes where every viewer reads them, PNG bytes otherwise; and (width, height).

    Own bytes: an 8-bit grey or RGB JPEG or PNG, whole. The image is decoded in full, so that a
    damaged file is refused here and not in the middle of a training run. With ``crop``, PNG bytes
    of that part. Errors as ``read_image``, and ``MediaError`` on a crop that leaves the image.
    """
    if crop is not None:
        part = _part(read_image, path, crop)
        return png_bytes(part), part.size
    image = _opened(path)
    if image.mode in ("L", "RGB") and image.format in ("JPEG", "PNG"):
        return path.read_bytes(), image.size
    image = read_image(path)
    return png_bytes(image), image.size


def png_bytes(image: Image.Image) -> bytes:
    """``image`` encoded as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def read_mask(
    paths: Sequence[Path],
    size: tuple[int, int],
    values: Sequence[int] = (),
    crop: Crop | None = None,
) -> Image.Image | None:
    """The union of the masks at ``paths``: mode ``"L"``, 0 background, 255 lesion.

    With ``crop``, that part of it. ``size`` is (width, height) of the image, or part, they belong
    to; ``None`` where there are no paths. A pixel is lesion when it is one of ``values``; without
    them, when it is above half of the mask's own maximum, which reads 0/1, 0/255 and smoothed edges
    alike. ``MediaError`` on an unreadable mask or one of another size.
    """
    if not paths:
        return None
    union = np.zeros((size[1], size[0]), dtype=bool)
    for path in paths:
        mask = _opened(path) if crop is None else _part(_opened, path, crop)
        if mask.size != size:
            raise MediaError(
                f"The mask {path} is {mask.size[0]} x {mask.size[1]} pixels and its image "
                f"{size[0]} x {size[1]}: give a mask of the image's size."
            )
        pixels = np.asarray(mask.convert("RGB") if mask.mode == "RGBA" else mask, dtype=np.float32)
        pixels = pixels.max(axis=2) if pixels.ndim == 3 else pixels
        union |= np.isin(pixels, values) if values else pixels > pixels.max() / 2
    return Image.fromarray(union.astype(np.uint8) * 255)


def read_label_map(path: Path) -> np.ndarray:
    """The values of a mask that tells several classes apart: rows x columns, as stored.

    ``MediaError`` on an unreadable mask and on one with colours instead of values.
    """
    values = np.asarray(_opened(path))
    if values.ndim != 2:
        raise MediaError(f"The mask {path} is in colour: give one whose pixels are class numbers.")
    return values


def boxes_of(mask: Image.Image) -> list[list[int]]:
    """Tight boxes of the 8-connected components of ``mask`` (non-zero pixels), top to bottom."""
    components, _ = ndimage.label(np.asarray(mask) > 0, structure=np.ones((3, 3)))
    return [
        [columns.start, rows.start, columns.stop, rows.stop]
        for rows, columns in ndimage.find_objects(components)
    ]


def read_ecg(record_path: Path) -> Ecg:
    """The WFDB record at ``record_path``: header ``.hea`` with a ``.dat`` or ``.mat`` signal.

    ``record_path`` may carry one of these suffixes or none. Headers as they occur in the wild are
    read: any case of the unit, a stray slash before it, a record name with an extension, lead names
    in any case. ``MediaError`` on a missing, truncated or unreadable record, on NaN samples, on a
    constant lead and on a unit that is no voltage.
    """
    header = header_path(record_path)
    if not header.is_file():
        raise MediaError(f"The ECG header {header} is missing: put it there or unlist the record.")
    record = _read_record(header)
    length, expected = len(record.p_signal), _header_length(header)
    if length == 0 or (expected is not None and length != expected):
        raise MediaError(
            f"The ECG {header} holds {length} samples where its header says {expected}: "
            "fetch the record again."
        )
    signal = record.p_signal.T * _scales(record.units, header)[:, None]
    if not np.isfinite(signal).all():
        raise MediaError(
            f"The ECG {header} has samples marked as missing (NaN): leave the record out."
        )
    leads = [_LEADS.get(name.strip().lower(), name.strip()) for name in record.sig_name]
    flat = [lead for lead, values in zip(leads, signal, strict=True) if np.ptp(values) == 0]
    if flat:
        raise MediaError(
            f"The ECG {header} is constant in {', '.join(flat)}, as of a loose electrode: leave "
            "the record out."
        )
    return Ecg(signal.astype(np.float32), leads, float(record.fs), list(record.comments))


def header_path(record_path: Path) -> Path:
    """The ``.hea`` file of a record named with or without its extension."""
    known = (".hea", *_SIGNAL_SUFFIXES)
    if record_path.suffix in known:
        return record_path.with_suffix(".hea")
    return Path(f"{record_path}.hea")


def content_hash(paths: Sequence[Path], ecg: Path | None = None) -> tuple[str, ...]:
    """SHA-256 of each file in ``paths``, and of the ECG's signal files; ``MediaError`` if missing.

    The ECG's header is left out: the same recording under two names has two headers.
    """
    files = list(paths)
    if ecg is not None:
        header = header_path(ecg)
        signals = [header.with_suffix(end) for end in _SIGNAL_SUFFIXES]
        files += [file for file in signals if file.is_file()] or [header]
    return tuple(_file_hash(file) for file in files)


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise MediaError(f"{path} is listed but missing: put it there or unlist it.") from error
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}): check the file.") from error


def _opened(path: Path) -> Image.Image:
    """The decoded first and only page of an image file, as Pillow gives it."""
    if not path.is_file():
        raise MediaError(f"The image {path} is missing: put it there or unlist it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            upright, pages = _decoded(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(
            f"The image {path} declares more than {Image.MAX_IMAGE_PIXELS} pixels: "
            "reduce it, or leave it out."
        ) from error
    except Exception as error:  # a decoder raises whatever a damaged file makes it trip over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MediaError(
            f"The image {path} cannot be read ({reason}): replace it with an intact "
            "JPEG, PNG, PGM, BMP, TIFF or WebP file, or leave it out."
        ) from error
    if pages > 1:
        raise MediaError(f"The image {path} has {pages} pages: give one file per page.")
    return upright


@lru_cache(maxsize=2)
def _kept(read: Callable[[Path], Image.Image], path: Path, _changed_ns: int) -> Image.Image:
    """An image and its mask, remembered: the parts of one image are asked for in a row."""
    return read(path)


def _part(read: Callable[[Path], Image.Image], path: Path, crop: Crop) -> Image.Image:
    whole = _kept(read, path, path.stat().st_mtime_ns if path.is_file() else 0)
    if not (0 <= crop[0] < crop[2] <= whole.width and 0 <= crop[1] < crop[3] <= whole.height):
        raise MediaError(
            f"{path} has {whole.width} x {whole.height} pixels and no part {list(crop)}: give a "
            "mask and an image of one size."
        )
    return whole.crop(crop)


def _decoded(path: Path) -> tuple[Image.Image, int]:
    """The first page, upright, with its file's ``format``; and the number of TIFF pages."""
    with Image.open(path, formats=IMAGE_FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        upright.format = image.format
        return upright, getattr(image, "n_frames", 1) if image.format == "TIFF" else 1


def _to_8_bit(image: Image.Image, path: Path) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise MediaError(f"The image {path} holds NaN or infinite pixels: export it again.")
    low, high = values.min(), values.max()
    scaled = (values - low) / max(high - low, 1.0 if image.mode != "F" else 1e-12)
    return Image.fromarray(np.round(scaled * 255).astype(np.uint8))


def _read_record(header: Path) -> wfdb.Record:
    """The record in physical units, renamed first where its header's name has an extension."""
    try:
        lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
        if not _named_with_extension(lines):
            return wfdb.rdrecord(str(header.with_suffix("")))
        with tempfile.TemporaryDirectory() as folder:
            return wfdb.rdrecord(str(_renamed(header, lines, Path(folder))))
    except Exception as error:  # as with images: any type, from KeyError to AttributeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MediaError(
            f"The ECG {header} cannot be read ({reason}): fetch its header and signal file "
            "again, or leave it out."
        ) from error


def _named_with_extension(lines: Sequence[str]) -> bool:
    return bool(lines) and "." in lines[0].split(" ")[0]


def _renamed(header: Path, lines: Sequence[str], folder: Path) -> Path:
    """A copy of the record in ``folder`` under the plain name that wfdb insists on."""
    name, *rest = lines[0].split(" ")
    plain = Path(name).stem
    (folder / f"{plain}.hea").write_text("\n".join([" ".join([plain, *rest]), *lines[1:], ""]))
    for signal_file in {line.split(" ")[0] for line in lines[1:] if line[:1] not in ("#", "")}:
        shutil.copy(header.parent / Path(signal_file).name, folder)
    return folder / plain


def _header_length(header: Path) -> int | None:
    """Samples per lead by the header's record line, ``None`` where it does not say."""
    fields = header.read_text(encoding="utf-8", errors="replace").split("\n")[0].split()
    return int(fields[3]) if len(fields) > 3 and fields[3].isdigit() else None


def _scales(units: Sequence[str], header: Path) -> np.ndarray:
    """Per lead, the factor that turns its unit into millivolts."""
    keys = [unit.strip(" /").lower() for unit in units]
    unknown = [key for key in keys if key not in _MILLIVOLTS]
    if unknown:
        raise MediaError(
            f"The ECG {header} is in {unknown[0]!r}, which is no voltage: "
            "its header must say mV, uV or V."
        )
    return np.array([_MILLIVOLTS[key] for key in keys])
