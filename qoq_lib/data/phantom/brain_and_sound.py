"""Families in grey without X-rays: brain MRI slice and abdominal ultrasound fan."""

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from qoq_lib.data.phantom.drawing import (
    SIZE,
    Array,
    Dial,
    Drawing,
    X,
    Y,
    blend,
    blob,
    depth_in,
    develop,
    lesion,
    place,
    radius,
    scatter,
    soft,
    texture,
)


def draw_mri(pattern: str, rng: Generator, dial: Dial) -> Drawing:
    """An axial T1-like brain slice: bright scalp, dark skull, folded cortex, dark ventricles."""
    cx, cy = 56 + rng.uniform(-3, 3), 56 + rng.uniform(-3, 3)
    rx, ry = rng.uniform(39, 43), rng.uniform(47, 51)
    head = radius(cx, cy, rx, ry, rng.uniform(-0.06, 0.06))
    image = blend(np.full((SIZE, SIZE), 0.02, np.float32), 0.72, soft(head, 0.03))
    image = blend(image, 0.06, soft(head / 0.93, 0.03))
    brain, tissue = head / 0.85, _folds(rng, head / 0.85)
    image = blend(image, tissue, soft(brain, 0.04))
    midline = np.clip(1.4 - np.abs(X - cx), 0, 1) * (np.abs(Y - cy) > 17) * (brain < 1)
    image = blend(image, 0.12, midline)
    horns = _ventricles(rng, cx, cy)
    image = blend(image, 0.08, horns)
    image = np.clip(image * rng.uniform(0.92, 1.08), 0, 1).astype(np.float32)
    mask = _mri_lesion(pattern, rng, dial, (cx, cy), brain)
    if mask is None:
        return Drawing(develop(rng, image, dial), None)
    value: float | Array = 0.99
    if pattern == "ragged ring":
        depth = depth_in(mask)
        value = np.where(depth > max(2.5, 4.5 * dial.size), 0.05, 0.99)
    return Drawing(develop(rng, lesion(image, mask, value, dial.contrast, edge=1.2), dial), mask)


def _folds(rng: Generator, brain: Array) -> Array:
    """White matter with a rim of grey folds; ``brain`` is 1 on the brain's outline."""
    fold = np.abs(texture(rng, 2.4)) < 0.3
    rim = np.clip((brain + 0.12 * texture(rng, 4) - 0.55) / 0.25, 0, 1)
    grey = np.where(fold, 0.2, 0.42)
    return 0.6 * (1 - rim) + grey * rim + 0.012 * texture(rng, 1)


def _ventricles(rng: Generator, cx: float, cy: float) -> Array:
    """The lateral ventricles as two curved horns either side of the midline, in [0, 1]."""
    wide = rng.uniform(2.6, 3.6)
    parts = [
        soft(radius(cx + s * 6, cy + dy, wide, 9, s * turn), 0.2)
        for s in (-1, 1)
        for dy, turn in ((-7, 0.4), (8, -0.45))
    ]
    return np.maximum.reduce(parts)


def _mri_lesion(
    pattern: str, rng: Generator, dial: Dial, centre: tuple[float, float], brain: Array
) -> Array | None:
    """A ring inside, a ball on the rim, or several spots round the ventricles."""
    if pattern == "ragged ring":
        size = rng.uniform(13, 16) * dial.size
        region = (brain < 0.9) & (np.abs(X - centre[0]) > 6)
        return blob(rng, place(rng, region, size), size, 0.1 + dial.wobble) & (brain < 1)
    if pattern == "bright ball at the edge":
        size = rng.uniform(10.5, 13) * dial.size
        rim = (brain > 0.8) & (brain < 0.86) & (np.abs(X - centre[0]) > 8)
        return blob(rng, place(rng, rim, 0), size, dial.wobble) & (brain < 1)
    if pattern == "scattered bright spots":
        level = radius(*centre, 23, 28)
        spots = scatter(rng, (level > 0.4) & (level < 1), int(rng.integers(6, 9)), 12)
        sizes = rng.uniform(3.4, 4.6, len(spots)) * dial.size
        drawn = [blob(rng, p, s, dial.wobble) for p, s in zip(spots, sizes, strict=True)]
        return np.logical_or.reduce(drawn)
    return None


def draw_ultrasound(pattern: str, rng: Generator, dial: Dial) -> Drawing:
    """A sector fan of speckle, fading with depth.

    The echo behind a lesion (enhancement below a cyst, shadow below a stone) is drawn too but lies
    outside the mask, which marks the lesion alone.
    """
    cx, top = 56 + rng.uniform(-3, 3), rng.uniform(-14, -8)
    depth, angle = np.hypot(X - cx, Y - top), np.arctan2(X - cx, Y - top)
    fan = (np.abs(angle) < rng.uniform(0.58, 0.68)) & (depth > 24) & (depth < 118)
    layers = np.sin(depth / rng.uniform(5, 7) + 1.5 * texture(rng, 9))
    echo = 0.42 + 0.05 * texture(rng, 5) + 0.14 * layers * np.exp(-(((depth - 24) / 22) ** 2))
    echo = (echo + 0.3 * np.exp(-(((depth - 27) / 3) ** 2))) * np.exp(-(depth - 24) / 170)
    region = fan & (depth > 46) & (depth < 100) & (np.abs(angle) < 0.45)
    mask: Array | None = None
    if pattern != "even speckle":
        size = rng.uniform(11, 14) * dial.size
        centre = place(rng, region, size)
        mask = _ultrasound_shape(pattern, rng, dial, centre, size) & fan
        behind = _behind(mask, depth, angle)
        echo, value = _behind_and_inside(pattern, echo, behind, dial)
        echo = lesion(echo, mask, value, dial.contrast, edge=1.5)
    image = np.where(fan, echo * _speckle(rng, dial), 0.0)
    image = np.clip(image * rng.uniform(0.95, 1.25), 0, 1)
    return Drawing(develop(rng, image, dial, grain=0.3), mask)


def _ultrasound_shape(
    pattern: str, rng: Generator, dial: Dial, centre: tuple[float, float], size: float
) -> Array:
    """An oval, a ball, or for a stone the cap that faces the probe."""
    if pattern == "bright arc with shadow":
        x, y = centre
        outer = radius(x, y, size * 1.1, size * 0.9) + 0.3 * dial.wobble * texture(rng, 4)
        cap = (outer < 1) & (radius(x, y + size * 0.5, size * 1.1, size * 0.9) > 1) & (y > Y)
        return cap
    return blob(rng, centre, size, dial.wobble, 0.7 if pattern == "black oval" else 1.0)


def _behind(mask: Array, depth: Array, angle: Array) -> Array:
    """What lies deeper than the mask along the beams, 0 to 1."""
    inside = angle[mask]
    shade = (angle > inside.min()) & (angle < inside.max()) & (depth > np.median(depth[mask]))
    return ndimage.gaussian_filter(np.where(mask, 0.0, shade * 1.0), 1.2)


def _behind_and_inside(pattern: str, echo: Array, behind: Array, dial: Dial) -> tuple[Array, float]:
    """The echo with the artefact below the lesion, and the lesion's own brightness."""
    if pattern == "black oval":
        return echo * (1 + 0.6 * behind * dial.contrast), 0.015
    if pattern == "bright arc with shadow":
        return echo * (1 - 0.92 * behind * dial.contrast), 1.0
    return echo, 0.95


def _speckle(rng: Generator, dial: Dial) -> Array:
    """Rayleigh speckle of mean 1, coarser across the beam than along it."""
    amplitude = np.hypot(texture(rng, (0.6, 1.1)), texture(rng, (0.6, 1.1)))
    strength = 0.45 + 0.4 * dial.difficulty
    return 1 + strength * (amplitude / amplitude.mean() - 1)
