"""Drawing on a 112 x 112 grid: shapes, textures, lesions that change only what their mask covers.

Images are float32 in [0, 1], rows x columns (x 3 for colour), until ``develop`` makes them 8 bit.
Coordinates are pixels, x to the right, y downwards.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

SIZE = 112
Y, X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)

Array = np.ndarray
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Drawing:
    """A picture (uint8, 112 x 112, x 3 in colour) and its lesion (bool, 112 x 112) or ``None``."""

    image: Array
    mask: Array | None


@dataclass(frozen=True)
class Dial:
    """What a difficulty in [0, 1] does to a lesion and to the picture around it."""

    difficulty: float

    @property
    def contrast(self) -> float:
        """Opacity of the lesion."""
        return 1.0 - 0.7 * self.difficulty

    @property
    def size(self) -> float:
        """Factor on the lesion's diameter."""
        return 1.0 - 0.4 * self.difficulty

    @property
    def wobble(self) -> float:
        """How far a lesion's outline strays from its shape, in parts of its radius."""
        return 0.03 + 0.15 * self.difficulty

    @property
    def noise(self) -> float:
        """Standard deviation of the picture's noise, in parts of full scale."""
        return 0.012 + 0.07 * self.difficulty


def radius(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> Array:
    """Distance from an ellipse's centre in units of its semi-axes: 1 on the outline."""
    dx, dy = X - cx, Y - cy
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return np.hypot((dx * cos + dy * sin) / rx, (dy * cos - dx * sin) / ry)


def soft(level: Array, width: float = 0.08) -> Array:
    """1 inside ``level < 1``, 0 outside, with an edge ``width`` wide."""
    return np.clip((1.0 - level) / width + 0.5, 0.0, 1.0)


def texture(rng: Generator, sigma: float | tuple[float, float]) -> Array:
    """Smooth noise of mean 0 and standard deviation 1."""
    field = ndimage.gaussian_filter(
        rng.standard_normal((SIZE, SIZE), dtype=np.float32), sigma, mode="wrap", truncate=2.5
    )
    field -= field.mean()
    return field / np.sqrt(np.square(field).mean())


def blend(image: Array, value: Array | float | Colour, alpha: Array) -> Array:
    """Lay ``value`` (grey, colour or picture) over ``image`` with opacity ``alpha``."""
    if image.ndim == 3:
        alpha = alpha[..., None]
    return image + (np.asarray(value, dtype=np.float32) - image) * alpha


def lesion(
    image: Array, mask: Array, value: Array | float | Colour, opacity: float, edge: float = 2.0
) -> Array:
    """Blend ``value`` inside ``mask`` and nowhere else, at full ``opacity`` ``edge`` px inside."""
    depth = depth_in(mask)
    return blend(image, value, np.clip(depth / edge, 0.0, 1.0) * opacity)


def depth_in(mask: Array) -> Array:
    """Distance in pixels from each pixel of ``mask`` to the nearest one outside, 0 outside."""
    return ndimage.distance_transform_edt(mask).astype(np.float32)


def blob(
    rng: Generator, centre: tuple[float, float], size: float, wobble: float, aspect: float = 1.0
) -> Array:
    """A filled closed outline around ``centre``, mean radius ``size``, strayed by ``wobble``."""
    waves = [(k, wobble * rng.normal() / k**0.5, rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 6)]
    turn = rng.uniform(0, np.pi)
    window = _window(centre, 2 * size)
    dx, dy = X[window] - centre[0], Y[window] - centre[1]
    angle = np.arctan2(dy, dx)
    stretch = np.sqrt((np.cos(angle - turn) ** 2) * aspect + np.sin(angle - turn) ** 2 / aspect)
    outline = 1.0 + sum(height * np.cos(k * angle + phase) for k, height, phase in waves)
    inside = np.hypot(dx, dy) * stretch <= size * np.clip(outline, 0.5, 1.6)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[window] = largest(inside)
    return mask


def star(
    rng: Generator, centre: tuple[float, float], size: float, spikes: int, length: float
) -> Array:
    """A disc of radius ``size`` with ``spikes`` tapering rays, ``length`` radii beyond it."""
    dx, dy = X - centre[0], Y - centre[1]
    phase = np.arctan2(dy, dx) * spikes / (2 * np.pi) + rng.uniform(0, 1)
    ray = np.abs(phase - np.round(phase)) * 2
    reach = rng.uniform(0.6, 1.0, spikes)[np.round(phase).astype(int) % spikes]
    return largest(np.hypot(dx, dy) <= size * (1.0 + length * reach * (1 - ray) ** 2))


def place(rng: Generator, region: Array, margin: float) -> tuple[float, float]:
    """A point (x, y) of ``region`` at least ``margin`` px inside it, or the deepest one."""
    depth = depth_in(region)
    ys, xs = np.nonzero(depth >= np.clip(margin, 1, depth.max()))
    pick = rng.integers(len(ys))
    return float(xs[pick]), float(ys[pick])


def scatter(rng: Generator, region: Array, count: int, spacing: float) -> list[tuple[float, float]]:
    """Up to ``count`` points (x, y) of ``region``, at least ``spacing`` px apart."""
    ys, xs = np.nonzero(region)
    order = rng.permutation(len(ys))[: 20 * count]
    left = np.stack([xs[order], ys[order]], axis=1).astype(np.float32)
    chosen: list[tuple[float, float]] = []
    while len(left) and len(chosen) < count:
        x, y = left[0].tolist()
        chosen.append((x, y))
        left = left[np.hypot(left[:, 0] - x, left[:, 1] - y) >= spacing]
    return chosen


def distance_to(points: list[tuple[float, float]]) -> Array:
    """Distance in pixels from the nearest of ``points`` (x, y), rounded to the grid."""
    empty = np.ones((SIZE, SIZE), dtype=bool)
    grid = np.clip(np.round(np.asarray(points)).astype(int), 0, SIZE - 1)
    empty[grid[:, 1], grid[:, 0]] = False
    return ndimage.distance_transform_edt(empty).astype(np.float32)


def develop(rng: Generator, image: Array, dial: Dial, grain: float = 1.0) -> Array:
    """Add ``grain`` times the dial's noise and turn [0, 1] into 8 bits."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * (dial.noise * grain)
    return np.clip((image + noise) * 255.0 + 0.5, 0, 255).astype(np.uint8)


def components(mask: Array) -> tuple[Array, int]:
    """Number the mask's 8-connected components: labels (0 is background) and their count."""
    return ndimage.label(mask, structure=np.ones((3, 3)))


def boxes(mask: Array) -> list[list[float]]:
    """Tight ``[x1, y1, x2, y2]`` of each component, ``x2`` and ``y2`` exclusive, in pixels."""
    labels, _ = components(mask)
    return [
        [float(cols.start), float(rows.start), float(cols.stop), float(rows.stop)]
        for rows, cols in ndimage.find_objects(labels)
    ]


def _window(centre: tuple[float, float], reach: float) -> tuple[slice, slice]:
    """Rows and columns within ``reach`` of ``centre``: drawing there alone is fast."""
    x, y = centre
    return (
        slice(max(0, int(y - reach)), max(0, int(y + reach) + 2)),
        slice(max(0, int(x - reach)), max(0, int(x + reach) + 2)),
    )


def largest(mask: Array) -> Array:
    """The biggest component alone, so that one lesion is one component."""
    labels, count = components(mask)
    if count < 2:
        return mask
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
