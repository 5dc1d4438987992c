"""CT and MRI volumes: NIfTI (``.nii``, ``.nii.gz``) and MetaImage (``.mhd``, ``.mha``).

A volume is slices from feet to head, each seen as radiologists do: the patient's right on the left,
the front at the top. That follows from the file's own orientation, whichever axis it stores first.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from qoq_lib.data.frames import Window, grey_levels, limits
from qoq_lib.data.readers.media import MAX_VALUES, MediaError, check_pixels, library

VOLUME_SUFFIXES = frozenset((".nii", ".nii.gz", ".mhd", ".mha"))


class Volume:
    """A volume in memory as it is stored, its slices in its own unit on demand.

    ``count`` is its number of slices. ``MediaError`` on another number of dimensions, on a size
    nobody would store and on a header that points out of its folder.
    """

    def __init__(self, path: Path) -> None:
        nifti = path.name.lower().endswith((".nii", ".nii.gz"))
        self._stored, self._slope, self._shift = (_nifti if nifti else _metaimage)(path)
        self.count = len(self._stored)

    def values(self, numbers: Sequence[int]) -> np.ndarray:
        """The slices ``numbers`` in the file's unit: slices x height x width."""
        return self._stored[list(numbers)] * self._slope + self._shift

    def images(self, numbers: Sequence[int], window: Window | None) -> list[Image.Image]:
        """The slices ``numbers`` in 8 bits: by ``window``, else by the range of all slices."""
        ends = limits(window) if window else self._range()
        return [Image.fromarray(grey) for grey in grey_levels(self.values(numbers), *ends)]

    def _range(self) -> tuple[float, float]:
        ends = np.array([self._stored.min(), self._stored.max()], dtype=np.float64)
        low, high = sorted(ends * self._slope + self._shift)
        return float(low), float(high)


def _nifti(path: Path) -> tuple[np.ndarray, float, float]:
    """Slices x rows x columns as stored, and the slope and intercept of their unit.

    nibabel and not SimpleITK, which fills up a truncated file with zeros.
    """
    nibabel = library("nibabel", path)
    image = nibabel.load(path)
    shape = tuple(image.shape)
    _check_shape(shape[:3] if shape[3:] == (1,) else shape, path)
    stored = np.asanyarray(image.dataobj.get_unscaled()).reshape(shape[:3])
    if stored.dtype.names or np.iscomplexobj(stored):
        raise MediaError(f"The volume {path} holds {stored.dtype} voxels: give one number each.")
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt("LPS")
    )
    turned = nibabel.apply_orientation(stored, turn).transpose(2, 1, 0)
    return turned, float(image.dataobj.slope), float(image.dataobj.inter)


def _metaimage(path: Path) -> tuple[np.ndarray, float, float]:
    """Slices x rows x columns; MetaImage has no slope."""
    sitk = library("SimpleITK", path)
    _check_data_file(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise MediaError(f"The volume {path} has several values per voxel: give one.")
    _check_shape(reader.GetSize(), path)
    turned: Any = sitk.DICOMOrient(reader.Execute(), "LPS")
    return sitk.GetArrayFromImage(turned), 1.0, 0.0


def _check_shape(shape: Sequence[int], path: Path) -> None:
    if len(shape) != 3:
        raise MediaError(f"The volume {path} has {len(shape)} dimensions: give three.")
    check_pixels(int(shape[0]), int(shape[1]), path, "volume")
    if not 0 < int(np.prod(shape, dtype=object)) <= MAX_VALUES:
        raise MediaError(
            f"The volume {path} declares {' x '.join(map(str, shape))} voxels where at most "
            f"{MAX_VALUES} are read: reduce it, or leave it out."
        )


def _check_data_file(path: Path) -> None:
    """Refuse a MetaImage header whose voxels lie anywhere but beside it."""
    with path.open("rb") as file:
        head = file.read(2**16).decode("latin-1")
    named = [
        value.strip()
        for key, _, value in (line.partition("=") for line in head.splitlines())
        if key.strip() == "ElementDataFile"
    ]
    name = named[0] if named else ""
    if name != "LOCAL" and (not name or PurePosixPath(name.replace("\\", "/")).name != name):
        raise MediaError(
            f"The volume {path} points out of its folder ({name!r}): put its voxels beside it."
        )
    if name.startswith("LIST") or "%" in name:
        raise MediaError(f"The volume {path} is spread over files ({name!r}): give one file.")
