"""Pictures: JPEG, PNG, PGM, BMP, TIFF and WebP files of any depth, as 8-bit images."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from qoq_lib.data.readers.media import MediaError, check_there, decoding

Image.init()  # Pillow knows TIFF and WebP by name only once it has loaded all its plugins
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".tif", ".tiff", ".webp")
)


def read_picture(path: Path) -> Image.Image:
    """The picture in 8 bits, mode ``"L"`` or ``"RGB"``, turned upright as its EXIF tag says.

    Deeper grey pictures are scaled from their own minimum and maximum to 0-255. Transparent pixels
    are laid on black. The format counts, not the name. ``MediaError`` on a missing, truncated,
    multi-page, unreadable or absurdly large file (Pillow's decompression-bomb limit).
    """
    image = open_picture(path)
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


def is_plain(path: Path) -> bool:
    """Whether the readable picture at ``path`` is what every viewer shows: an 8-bit JPEG or PNG."""
    with Image.open(path, formats=_FORMATS) as image:
        return image.mode in ("L", "RGB") and image.format in ("JPEG", "PNG")


def png_bytes(image: Image.Image) -> bytes:
    """``image`` encoded as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def open_picture(path: Path) -> Image.Image:
    """The decoded first and only page of a picture, upright, its values as they are stored."""
    check_there(path, "image")
    remedy = "replace it with an intact JPEG, PNG, PGM, BMP, TIFF or WebP file, or leave it out"
    with decoding("image", path, remedy):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                upright, pages = _decoded(path)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise MediaError(
                f"The image {path} declares more than {Image.MAX_IMAGE_PIXELS} pixels: "
                "reduce it, or leave it out."
            ) from error
    if pages > 1:
        raise MediaError(f"The image {path} has {pages} pages: give one file per page.")
    return upright


def _decoded(path: Path) -> tuple[Image.Image, int]:
    """The first page, upright, and the number of TIFF pages."""
    with Image.open(path, formats=_FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        return upright, getattr(image, "n_frames", 1) if image.format == "TIFF" else 1


def _to_8_bit(image: Image.Image, path: Path) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise MediaError(f"The image {path} holds NaN or infinite pixels: export it again.")
    low, high = values.min(), values.max()
    scaled = (values - low) / max(high - low, 1.0 if image.mode != "F" else 1e-12)
    return Image.fromarray(np.round(scaled * 255).astype(np.uint8))
