"""Writers of small files in real formats, for the miniatures of data sets."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian


def table(path: Path, header: str, *lines: str) -> None:
    """A comma-separated table, compressed where its name ends in ``.gz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([header, *lines, ""]).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def noise(seed: int, shape: tuple[int, int] = (12, 16)) -> np.ndarray:
    """Grey pixels that depend on ``seed`` alone."""
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


Place = tuple[slice, slice]
"""Rows and columns of a part of a picture."""


def lesioned(seed: int, *places: Place, shape: tuple[int, int] = (12, 16)) -> np.ndarray:
    """Dark noise with lesions as bright as can be."""
    pixels = noise(seed, shape) // 4
    for place in places:
        pixels[place] = 255
    return pixels


def picture(path: Path, pixels: np.ndarray) -> None:
    """A JPEG or PNG, by the name of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def film(path: Path, pixels: np.ndarray, side: str | None = None) -> None:
    """A grey DICOM film that tells its ``side``, if any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = pixels.tobytes()
    if side is not None:
        data.ImageLaterality = side
    data.save_as(path, enforce_file_format=True)


def truncate(path: Path) -> None:
    """Cut a file in half, as an interrupted download leaves it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
