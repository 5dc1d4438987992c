"""Families in colour: dermoscopy, fundus photograph, pathology slide stained pink and purple."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw
from scipy import ndimage

from qoq_lib.data.phantom.drawing import (
    SIZE,
    Array,
    Colour,
    Dial,
    Drawing,
    X,
    Y,
    blend,
    blob,
    depth_in,
    develop,
    distance_to,
    lesion,
    place,
    radius,
    scatter,
    soft,
    texture,
)

SKIN: tuple[Colour, ...] = ((0.92, 0.74, 0.64), (0.86, 0.66, 0.54), (0.94, 0.79, 0.71))


def draw_dermoscopy(pattern: str, rng: Generator, dial: Dial) -> Drawing:
    """Skin through a dermatoscope: one pigmented patch, hairs across it, dark corners."""
    image = _flat(SKIN[rng.integers(len(SKIN))])
    image *= (1 + 0.02 * texture(rng, 1) + 0.03 * texture(rng, 12))[..., None]
    ragged = 0.22 if pattern == "ragged dark patch" else 0.0
    centre = (56 + rng.uniform(-12, 12), 56 + rng.uniform(-12, 12))
    size = rng.uniform(18, 23) * dial.size
    mask = blob(rng, centre, size, ragged + dial.wobble, rng.uniform(0.85, 1.15))
    image = lesion(image, mask, _patch(pattern, rng, mask), dial.contrast, edge=3)
    for _ in range(rng.integers(2, 7)):
        image = blend(image, (0.2, 0.13, 0.1), _curve(rng) * 0.75)
    corners = np.clip((radius(56, 56, 62, 62) - 1) / 0.1, 0, 1)
    image = blend(image, (0.05, 0.04, 0.04), corners) * rng.uniform(0.92, 1.05)
    return Drawing(develop(rng, image, dial), mask)


def _patch(pattern: str, rng: Generator, mask: Array) -> Array:
    """The lesion's own surface."""
    if pattern == "even brown patch":
        return _flat((0.5, 0.29, 0.17)) * (1 + 0.06 * texture(rng, 1.5))[..., None]
    if pattern == "ragged dark patch":
        surface = blend(_flat((0.22, 0.12, 0.1)), (0.45, 0.24, 0.15), texture(rng, 5) > 0.5)
        surface = blend(surface, (0.34, 0.38, 0.5), texture(rng, 4) > 1.0)
        return blend(surface, (0.03, 0.02, 0.03), texture(rng, 4) > 0.7)
    if pattern == "shiny pink patch":
        surface = _flat((0.93, 0.45, 0.5)) * (1 + 0.05 * texture(rng, 2))[..., None]
        surface = blend(surface, (0.78, 0.1, 0.18), np.abs(texture(rng, 4)) < 0.07)
        return blend(surface, (1.0, 0.93, 0.93), np.clip(texture(rng, 3) - 1.1, 0, 1))
    dots = distance_to(scatter(rng, mask, 22, 6))
    surface = _flat((0.72, 0.52, 0.28)) * (1 + 0.05 * texture(rng, 2))[..., None]
    return blend(surface, (0.3, 0.18, 0.1), np.clip(2.4 - dots, 0, 1))


def _curve(rng: Generator) -> Array:
    """A thin curved hair across the picture, opacity in [0, 1]."""
    angle, bend = rng.uniform(0, np.pi), rng.uniform(-0.006, 0.006)
    dx, dy = X - rng.uniform(20, 92), Y - rng.uniform(20, 92)
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    near = np.clip(1.3 - np.abs(across - bend * along**2), 0, 1)
    return near * (np.abs(along) < rng.uniform(25, 60))


def draw_fundus(pattern: str, rng: Generator, dial: Dial) -> Drawing:
    """A retina: an orange disc on black with optic disc, vessels and macula."""
    cx, cy, side = 56 + rng.uniform(-2, 2), 56 + rng.uniform(-2, 2), rng.choice([-1.0, 1.0])
    nerve = (cx + side * rng.uniform(24, 28), cy + rng.uniform(-4, 4))
    macula = (cx - side * rng.uniform(6, 10), cy + rng.uniform(-3, 3))
    retina = radius(cx, cy, 51, 51)
    shade = 1.05 - 0.3 * retina**2 + 0.04 * texture(rng, 5)
    image = _flat((0.85, 0.4, 0.15)) * shade[..., None]
    image = blend(image, (0.5, 0.18, 0.07), 0.7 * np.exp(-(radius(*macula, 11, 11) ** 2)))
    image = blend(image, (0.98, 0.76, 0.4), soft(radius(*nerve, 11.5, 12.5), 0.15))
    if pattern != "wide pale cup":
        image = blend(image, (1.0, 0.9, 0.65), soft(radius(*nerve, 4, 4.5), 0.4))
    image = blend(image, (0.5, 0.07, 0.05), _vessels(rng, nerve, side) * 0.9)
    image *= rng.uniform(0.9, 1.08)
    mask: Array | None = None
    if pattern == "wide pale cup":
        mask = blob(rng, nerve, rng.uniform(9.8, 11) * (1 - 0.25 * dial.difficulty), dial.wobble)
        image = lesion(image, mask, (0.98, 1.0, 0.94), dial.contrast, edge=1.5)
    elif pattern == "dark red blots":
        far = (retina < 0.85) & (radius(*nerve, 16, 16) > 1) & (radius(*macula, 13, 13) > 1)
        mask = _spots(rng, dial, far, int(rng.integers(7, 10)), (3.8, 5.2), 13)
        image = lesion(image, mask, (0.22, 0.0, 0.02), dial.contrast, edge=1.2)
    elif pattern == "central yellow spots":
        near = radius(*macula, 15, 15) < 1
        mask = _spots(rng, dial, near, int(rng.integers(7, 11)), (2.8, 4.2), 7.5)
        image = lesion(image, mask, (1.0, 0.97, 0.45), dial.contrast, edge=1.2)
    image = blend(image, (0.01, 0.01, 0.01), 1 - soft(retina, 0.03))
    return Drawing(develop(rng, image, dial), mask)


def _vessels(rng: Generator, nerve: tuple[float, float], side: float) -> Array:
    """Four arcades from the optic disc with side branches, opacity in [0, 1]."""
    canvas = Image.new("L", (2 * SIZE, 2 * SIZE))
    pen = ImageDraw.Draw(canvas)
    for up in (-1, 1):
        for reach, rise, width in ((74, 34, 4), (-20, 40, 3)):
            t = np.linspace(0, 1, 24)
            x = nerve[0] - side * reach * t**1.3 + np.cumsum(rng.normal(0, 0.4, 24))
            y = nerve[1] + up * rise * rng.uniform(0.85, 1.15) * np.sin(np.pi * 0.6 * t)
            _line(pen, x, y, width)
            for start in rng.integers(6, 20, 3):
                bend = rng.uniform(-0.5, 1.0)
                _line(pen, x[start] - side * 16 * t, y[start] + up * bend * 16 * t**0.8, 2)
    return np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255


def _line(pen: ImageDraw.ImageDraw, x: Array, y: Array, width: int) -> None:
    """A polyline on the doubled grid."""
    pen.line([(2 * a, 2 * b) for a, b in zip(x, y, strict=True)], fill=255, width=width)


def _spots(
    rng: Generator, dial: Dial, region: Array, count: int, sizes: tuple[float, float], gap: float
) -> Array:
    """Several small blobs in ``region``."""
    centres = scatter(rng, region, count, gap)
    drawn = [blob(rng, at, rng.uniform(*sizes) * dial.size, dial.wobble) for at in centres]
    return np.logical_or.reduce(drawn)


def draw_pathology(pattern: str, rng: Generator, dial: Dial) -> Drawing:
    """A slide stained with haematoxylin and eosin: purple nuclei on pink fibres."""
    image = _flat((0.93, 0.72, 0.82))
    streaks = texture(rng, (1.0, 5.0))
    fibres = ndimage.rotate(streaks, rng.uniform(0, 180), reshape=False, order=1, mode="wrap")
    image = image * (1 + 0.05 * fibres + 0.03 * texture(rng, 6))[..., None]
    nuclei = scatter(rng, np.ones((SIZE, SIZE), dtype=bool), int(rng.integers(38, 52)), 11)
    cells = np.clip(rng.uniform(2.2, 2.8) + 0.5 * texture(rng, 2) - distance_to(nuclei), 0, 1)
    image = blend(image, (0.42, 0.22, 0.55), cells * 0.9)
    if pattern == "sparse even cells":
        return Drawing(develop(rng, image * rng.uniform(0.93, 1.05), dial), None)
    whole = (X > 2) & (X < SIZE - 3) & (Y > 2) & (Y < SIZE - 3)
    if pattern == "open rings of cells":
        centres = scatter(rng, radius(56, 56, 34, 34) < 1, int(rng.integers(2, 4)), 40)
        rings = [blob(rng, at, rng.uniform(15, 19) * dial.size, dial.wobble) for at in centres]
        mask = np.logical_or.reduce(rings) & whole
    else:
        centre, size = place(rng, whole, 24), rng.uniform(22, 27) * dial.size
        mask = blob(rng, centre, size, 0.1 + dial.wobble) & whole
    image = lesion(image, mask, _tissue(pattern, rng, mask), dial.contrast, edge=1.5)
    return Drawing(develop(rng, image * rng.uniform(0.93, 1.05), dial), mask)


def _tissue(pattern: str, rng: Generator, mask: Array) -> Array:
    """What fills the mask: glands with an open middle, lymphocytes, or dead tissue."""
    if pattern == "blank pink patch":
        return _flat((0.98, 0.6, 0.7)) * (1 + 0.02 * texture(rng, 4))[..., None]
    if pattern == "swarm of small dots":
        dots = distance_to(scatter(rng, mask, 230, 3.2))
        return blend(_flat((0.82, 0.62, 0.8)), (0.24, 0.1, 0.42), np.clip(2.0 - dots, 0, 1))
    depth = depth_in(mask)
    wall = depth < 0.48 * depth.max()
    surface = blend(_flat((0.99, 0.97, 0.98)), (0.66, 0.42, 0.7), wall)
    band = (depth > 1.5) & (depth < 0.36 * depth.max())
    dots = distance_to(scatter(rng, band, 60, 4.6))
    return blend(surface, (0.26, 0.1, 0.42), np.clip(2.7 - dots, 0, 1) * wall)


def _flat(colour: Colour) -> Array:
    """A picture of one colour."""
    return np.full((SIZE, SIZE, 3), colour, dtype=np.float32)
