"""CT and MRI volumes and videos as the model takes them: a few evenly spaced frames, as images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from qoq_lib.runs import OneSentenceError

FRAMES = 4
"""How many frames stand for a volume or a video, unless told otherwise."""


class FrameError(OneSentenceError, ValueError):
    """A volume or video without the frames asked for; the message says why."""


Window = tuple[float, float]
"""The intensities shown of a volume: the middle grey, and the width from black to white.

In the volume's own unit; of a CT, Hounsfield units (lung: ``(-600, 1500)``).
"""


def limits(window: Window) -> tuple[float, float]:
    """The intensities that ``window`` shows as black and as white."""
    level, width = window
    return level - width / 2, level + width / 2


def frame_numbers(count: int, frames: int = FRAMES) -> list[int]:
    """Number ``(2 * k + 1) * count // (2 * frames)`` for each ``k`` below ``frames``, from 0.

    The middle of the k-th of ``frames`` equal parts, so that the often empty ends are left out.
    ``FrameError`` for no frames or more than the ``count`` there are.
    """
    if not 1 <= frames <= count:
        raise FrameError(
            f"{frames} frames cannot be drawn from {count} slices: ask for at least 1 and at most "
            "as many as there are."
        )
    return [(2 * k + 1) * count // (2 * frames) for k in range(frames)]


def grey_levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """``values`` in 8 bits: ``low`` and below 0, ``high`` and above 255, between them linear."""
    if not np.isfinite([low, high]).all():
        raise FrameError("The volume holds NaN or infinite intensities: repair or drop it.")
    scaled = (values.astype(np.float64) - low) / ((high - low) or 1.0)
    return np.round(scaled.clip(0, 1) * 255).astype(np.uint8)


def evenly_spaced_frames(
    volume: np.ndarray | Sequence[Image.Image], frames: int = FRAMES
) -> list[Image.Image]:
    """``frames`` images out of a volume or video, one ``{"type": "image"}`` part each, in order.

    Args:
        volume: depth x height x width of any intensity unit, time x height x width x 3 (RGB), or
            the slices themselves as images, which are passed on as they are. An array that is not
            uint8 is scaled from its own minimum and maximum to 0-255, one scale for all slices:
            window a CT (clip its Hounsfield units) before.
        frames: how many images to draw; which ones, ``frame_numbers`` says.

    Raises:
        FrameError: no slices or fewer than ``frames``, another shape, or NaN/infinite intensities.
    """
    chosen = frame_numbers(len(volume), frames)
    if not isinstance(volume, np.ndarray):
        return [volume[index] for index in chosen]
    if volume.ndim not in (3, 4) or (volume.ndim == 4 and volume.shape[3] != 3) or not volume.size:
        raise FrameError(
            f"A volume must be depth x height x width, or time x height x width x 3, got shape "
            f"{volume.shape}."
        )
    drawn = volume[chosen]
    if volume.dtype != np.uint8:
        drawn = grey_levels(drawn, float(volume.min()), float(volume.max()))
    return [Image.fromarray(image) for image in drawn]
