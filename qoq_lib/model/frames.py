"""CT and MRI volumes and videos as the model takes them: a few evenly spaced frames, as images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from qoq_lib.runs import OneSentenceError


class FrameError(OneSentenceError, ValueError):
    """A volume or video without the frames asked for; the message says why."""


def evenly_spaced_frames(
    volume: np.ndarray | Sequence[Image.Image], frames: int = 4
) -> list[Image.Image]:
    """``frames`` images out of a volume or video, one ``{"type": "image"}`` part each, in order.

    Of ``count`` slices, image ``k`` is slice ``(2 * k + 1) * count // (2 * frames)``, counted from
    0: the middle of the k-th of ``frames`` equal parts, so that the often empty ends are left out.

    Args:
        volume: depth x height x width of any intensity unit, time x height x width x 3 (RGB), or
            the slices themselves as images, which are passed on as they are. An array that is not
            uint8 is scaled from its own minimum and maximum to 0-255, one scale for all slices:
            window a CT (clip its Hounsfield units) before.
        frames: how many images to draw.

    Raises:
        FrameError: no slices or fewer than ``frames``, another shape, or NaN/infinite intensities.
    """
    count = len(volume)
    if not 1 <= frames <= count:
        raise FrameError(
            f"{frames} frames cannot be drawn from {count} slices: ask for at least 1 and at most "
            "as many as there are."
        )
    chosen = [(2 * k + 1) * count // (2 * frames) for k in range(frames)]
    if isinstance(volume, np.ndarray):
        return [Image.fromarray(image) for image in _grey_levels(volume, chosen)]
    return [volume[index] for index in chosen]


def _grey_levels(volume: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """The chosen slices in 8 bits, on one scale for the whole volume."""
    if volume.ndim not in (3, 4) or (volume.ndim == 4 and volume.shape[3] != 3) or not volume.size:
        raise FrameError(
            f"A volume must be depth x height x width, or time x height x width x 3, got shape "
            f"{volume.shape}."
        )
    if volume.dtype == np.uint8:
        return volume[chosen]
    low, high = float(volume.min()), float(volume.max())
    if not np.isfinite([low, high]).all():
        raise FrameError("The volume holds NaN or infinite intensities: repair or drop it.")
    scaled = (volume[chosen].astype(np.float64) - low) / ((high - low) or 1.0)
    return np.round(scaled * 255).astype(np.uint8)
