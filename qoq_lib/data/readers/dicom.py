"""DICOM: single and multi-frame, grey and colour, plain and compressed, as 8-bit images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    get_decoder,
    pixel_array,
)
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from qoq_lib.data.frames import Window, grey_levels, limits
from qoq_lib.data.readers.media import MAX_VALUES, MediaError, ReaderMissing, check_pixels

DICOM_SUFFIXES = frozenset((".dcm", ".dicom"))


class Dicom:
    """The header of a DICOM file, checked, and its frames on demand.

    ``count`` is its number of frames. ``MediaError`` on sizes nobody would store and on a deflated
    file, whose header alone may unpack to any size; ``ReaderMissing`` without a decoder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        syntax = read_file_meta_info(path).TransferSyntaxUID
        if syntax == DeflatedExplicitVRLittleEndian:
            raise MediaError(f"The image {path} is a deflated DICOM: save it without deflation.")
        self._header: Dataset = dcmread(path, stop_before_pixels=True)
        self.count = int(self._header.get("NumberOfFrames") or 1)
        width, height = int(self._header.Columns), int(self._header.Rows)
        check_pixels(width, height, path, "image")
        if not 0 < self.count * width * height <= MAX_VALUES:
            raise MediaError(f"The image {path} declares {self.count} frames: leave it out.")
        _check_decoder(syntax, path)

    def values(self, numbers: Sequence[int]) -> np.ndarray:
        """The stored values of the frames ``numbers``: frames x height x width (x 3, RGB)."""
        return np.stack([pixel_array(self._path, index=number) for number in numbers])

    def images(self, numbers: Sequence[int], window: Window | None) -> list[Image.Image]:
        """The frames ``numbers`` in 8 bits, rescaled, windowed, black where nothing absorbs.

        The window is ``window``, else the file's own (PS3.3 C.11.2), else the frames' range.
        """
        stored, kind = self.values(numbers), str(self._header.PhotometricInterpretation)
        if kind == "PALETTE COLOR":
            stored = np.stack([apply_color_lut(frame, self._header) for frame in stored])
        if stored.ndim == 4:
            return [Image.fromarray(frame) for frame in _colour(stored)]
        values = apply_modality_lut(stored, self._header)
        window = window or _stated_window(self._header)
        if window is None:
            values = apply_voi_lut(values, self._header)
        ends = limits(window) if window else (float(values.min()), float(values.max()))
        grey = grey_levels(values, *ends)
        return [Image.fromarray(frame) for frame in (255 - grey if kind == "MONOCHROME1" else grey)]


def _check_decoder(syntax: UID, path: Path) -> None:
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise ReaderMissing(
            f"{path} is compressed as {syntax.name}: pip install 'qoq-med-repro[data]'."
        )


def _stated_window(header: Dataset) -> Window | None:
    """The header's first linear window; ``None`` without one, or where a table or curve is."""
    if "VOILUTSequence" in header or header.get("VOILUTFunction", "LINEAR") == "SIGMOID":
        return None
    level, width = header.get("WindowCenter"), header.get("WindowWidth")
    if level is None or width is None:
        return None
    return float(np.ravel(level)[0]), float(np.ravel(width)[0])


def _colour(values: np.ndarray) -> np.ndarray:
    """RGB in 8 bits: 16-bit channels lose their lower half."""
    return values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)
