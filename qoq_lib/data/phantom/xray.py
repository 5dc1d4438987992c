"""Families drawn with X-rays: chest radiograph, mammogram, abdominal CT slice (all greyscale)."""

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
    develop,
    largest,
    lesion,
    place,
    radius,
    scatter,
    soft,
    star,
    texture,
)


def draw_chest(pattern: str, rng: Generator, dial: Dial) -> Drawing:
    """A frontal chest radiograph; lesions lie in one lung."""
    cx, cy = 56 + rng.uniform(-3, 3), 54 + rng.uniform(-3, 3)
    width, height = rng.uniform(18, 21), rng.uniform(34, 39)
    right = radius(cx - 22, cy, width, height, 0.1)
    left = radius(cx + 22, cy, width, height, -0.1)
    dome = cy + height * rng.uniform(0.6, 0.75)
    floor = dome + 0.012 * (np.abs(X - cx) - 20) ** 2 - 3 * (X < cx)
    heart = radius(cx + 7, cy + 19, rng.uniform(15, 19), 19, 0.5)
    lungs = [(side < 1) & (floor > Y) & (heart > 1) for side in (right, left)]
    image = _chest_anatomy(rng, (cx, cy), (right, left), floor, heart)
    lung = lungs[rng.integers(2)]
    mask: Array | None = None
    if pattern == "diffuse haze":
        centre = place(rng, lung, 9)
        mask = blob(rng, centre, rng.uniform(17, 21) * dial.size, 0.15 + dial.wobble, 0.7) & lung
        cloud = np.clip(0.72 + 0.09 * texture(rng, 2.5), 0, 1)
        image = lesion(image, mask, cloud, dial.contrast, edge=4)
    elif pattern == "round spot":
        size = rng.uniform(9.5, 12) * dial.size
        mask = blob(rng, place(rng, lung, size), size, dial.wobble)
        image = lesion(image, mask, 0.93, dial.contrast)
    elif pattern == "dark rim":
        image, mask = _pneumothorax(rng, image, lung, dial)
    return Drawing(develop(rng, image, dial), mask)


def _chest_anatomy(
    rng: Generator,
    centre: tuple[float, float],
    sides: tuple[Array, Array],
    floor: Array,
    heart: Array,
) -> Array:
    """Body, lungs with vessels, heart, spine, ribs and clavicles."""
    cx, cy = centre
    body = np.maximum(soft(radius(cx, cy + 30, 54, 78), 0.06), soft(radius(cx, 4, 15, 24), 0.1))
    image = 0.03 + 0.6 * body * (1 + 0.03 * texture(rng, 3))
    lungs = np.maximum(soft(sides[0], 0.12), soft(sides[1], 0.12)) * (floor > Y)
    hilum = np.exp(-(((np.abs(X - cx) - 12) / 9) ** 2) - ((Y - cy) / 14) ** 2)
    air = rng.uniform(0.24, 0.3) + 0.035 * texture(rng, 1.2) + 0.16 * hilum
    image = blend(image, air, lungs)
    image = blend(image, 0.74, soft(heart, 0.15) * (floor + 6 > Y) * 0.95)
    image += 0.12 * np.exp(-(((X - cx) / 5) ** 2)) * body * (1 + 0.15 * np.cos(Y * 0.9))
    arch = Y - cy + rng.uniform(0, 12) - 0.013 * (np.abs(X - cx) - 26) ** 2
    ribs = np.clip(np.cos(2 * np.pi * arch / rng.uniform(11, 13)) - 0.35, 0, 1)
    cage = soft(radius(cx, cy, 46, 46), 0.1) * (np.abs(X - cx) > 6) * (floor + 5 > Y)
    image += 0.15 * ribs * cage
    clavicle = np.abs(Y - (cy - 32 - 0.22 * (np.abs(X - cx) - 20)))
    reach = (np.abs(X - cx) > 6) & (np.abs(X - cx) < 44)
    image += 0.2 * np.clip(1.5 - clavicle / 2, 0, 1) * reach * body
    return np.clip(image * rng.uniform(0.9, 1.08), 0, 1).astype(np.float32)


def _pneumothorax(rng: Generator, image: Array, lung: Array, dial: Dial) -> tuple[Array, Array]:
    """Black air between the chest wall and a lung edge drawn as a thin bright line."""
    outward = 1.0 if np.nonzero(lung)[1].mean() > SIZE / 2 else -1.0
    gap = rng.uniform(13, 17) * dial.size
    edge_of_row = np.where(lung, X * outward, -np.inf).max(axis=1, keepdims=True)
    waves = dial.wobble * 12 * np.sin(Y / rng.uniform(6, 10) + rng.uniform(0, 6))
    depth = edge_of_row - X * outward - waves
    taper = np.clip((np.nonzero(lung)[0].max() - 4 - Y) / 30, 0, 1)
    mask = largest(lung & (depth < gap * taper))
    rim = mask & (depth > gap * taper - 2.2)
    return lesion(image, mask, np.where(rim, 0.95, 0.0), dial.contrast, edge=1), mask


def draw_mammography(pattern: str, rng: Generator, dial: Dial) -> Drawing:
    """A mediolateral view: half a disc of fat and glandular tissue against black."""
    cy, reach, half = 58 + rng.uniform(-4, 4), rng.uniform(72, 84), rng.uniform(44, 50)
    shape = radius(0, cy, reach, half)
    tissue = 0.3 + 0.05 * texture(rng, (1.0, 2.5)) + 0.05 * texture(rng, 5)
    gland = radius(reach * 0.5, cy, reach * 0.42, half * 0.62)
    tissue = tissue + np.clip(1.15 - gland, 0, 1) * (0.16 + 0.06 * texture(rng, 2))
    image = blend(np.full((SIZE, SIZE), 0.02, np.float32), tissue, soft(shape, 0.04))
    image += 0.25 * np.exp(-(((shape - 0.98) / 0.018) ** 2))
    muscle = (rng.uniform(26, 34) - X) * 1.4 + (10 - Y)
    image = blend(image, 0.68, np.clip(muscle / 8, 0, 1) * (shape < 1) * 0.9)
    region = (shape < 0.86) & (muscle < -4) & (X > 8)
    mask: Array | None = None
    if pattern == "spiky mass":
        size = rng.uniform(8, 9.5) * dial.size
        centre = place(rng, region, 1.5 * size)
        mask = star(rng, centre, size, int(rng.integers(9, 13)), 1.3 - 0.4 * dial.difficulty)
        image = lesion(image, mask, 0.97, dial.contrast, edge=1.2)
    elif pattern == "smooth oval":
        size = rng.uniform(12, 15) * dial.size
        mask = blob(rng, place(rng, region, size), size, dial.wobble / 2, 0.6)
        image = lesion(image, mask, 0.8, dial.contrast)
    elif pattern == "cluster of specks":
        size = rng.uniform(14, 17) * dial.size
        mask = blob(rng, place(rng, region, size), size, 0.1 + dial.wobble) & (shape < 0.95)
        image = _specks(rng, image, mask, dial)
    image = np.clip(image * rng.uniform(0.9, 1.1), 0, 1)
    image = image[:, ::-1] if (flip := bool(rng.integers(2))) else image
    mask = mask[:, ::-1] if flip and mask is not None else mask
    return Drawing(develop(rng, image, dial), mask)


def _specks(rng: Generator, image: Array, mask: Array, dial: Dial) -> Array:
    """White grains of 2 to 3 px on a slightly denser ground; the mask is the cluster."""
    inner = ndimage.binary_erosion(mask, iterations=2)
    grains = np.zeros((SIZE, SIZE), dtype=bool)
    for x, y in scatter(rng, inner, 22, 4.5):
        size = rng.integers(2, 4)
        grains[int(y) : int(y) + size, int(x) : int(x) + size] = True
    image = lesion(image, mask, np.clip(image * 0.75, 0, 1), dial.contrast, edge=3)
    return lesion(image, grains & mask, 1.0, dial.contrast, edge=1)


def draw_ct(pattern: str, rng: Generator, dial: Dial) -> Drawing:
    """An axial slice of the upper abdomen in a soft-tissue window, patient's right at the left."""
    cx, cy = 56 + rng.uniform(-2, 2), 55 + rng.uniform(-2, 2)
    rx, ry = rng.uniform(49, 53), rng.uniform(37, 41)
    body = radius(cx, cy, rx, ry)
    image = 0.02 + 0.3 * np.exp(-((Y - (cy + ry + 5) - 0.002 * (X - cx) ** 2) ** 2) / 2)
    for level, value in ((body, 0.26), (body / 0.92, 0.5), (body / 0.84, 0.24)):
        image = blend(image, value, soft(level, 0.03))
    image = _ribs(rng, image, body, (cx, cy))
    liver = blob(rng, (cx - 19, cy - 4), 25, 0.05, 0.9) & (body < 0.82) & (cx + 6 > X)
    image = blend(image, 0.56 + 0.025 * texture(rng, 0.9), ndimage.gaussian_filter(1.0 * liver, 1))
    image = blend(image, 0.6, soft(radius(cx + 32, cy + 8, 8, 14, 0.3), 0.15))
    stomach = radius(cx + 20, cy - 15, 15, 11, 0.2)
    image = blend(image, np.where(cy - 17 > Y, 0.02, 0.45), soft(stomach, 0.12))
    for side in (-1, 1):
        kidney = radius(cx + side * 23, cy + 19, 7, 9, side * 0.4)
        image = blend(image, 0.72 - 0.25 * (kidney < 0.45), soft(kidney, 0.15))
    image = blend(image, 0.9, soft(radius(cx, cy + 17, 9, 8), 0.12))
    image = blend(image, 0.97, soft(radius(cx, cy + 29, 2.5, 7), 0.2))
    image = blend(image, 0.4, soft(radius(cx, cy + 26.5, 4, 3), 0.2))
    image = blend(image, 0.7, soft(radius(cx + 2, cy + 5, 4.2, 4.2), 0.2))
    image = np.clip(image * rng.uniform(0.92, 1.08), 0, 1).astype(np.float32)
    mask = _ct_lesion(pattern, rng, dial, liver, (cx + 3, cy + 2))
    if mask is not None:
        value = 0.95 if pattern == "large bright disc" else 0.16
        image = lesion(image, mask, value, dial.contrast, edge=1.5)
    return Drawing(develop(rng, image, dial, grain=1.3), mask)


def _ribs(rng: Generator, image: Array, body: Array, centre: tuple[float, float]) -> Array:
    """Short bright arcs of rib in the body wall."""
    angle = np.arctan2(Y - centre[1], X - centre[0])
    dashes = np.cos(angle * 9 + rng.uniform(0, 6)) > 0.45
    ring = np.clip(1 - np.abs(body - 0.88) / 0.035, 0, 1)
    return blend(image, 0.95, ring * dashes)


def _ct_lesion(
    pattern: str, rng: Generator, dial: Dial, liver: Array, aorta: tuple[float, float]
) -> Array | None:
    """One cyst or several metastases in the liver, or a widened aorta."""
    if pattern == "dark round spot":
        size = rng.uniform(10, 12.5) * dial.size
        return blob(rng, place(rng, liver, size + 1), size, dial.wobble) & liver
    if pattern == "several dark spots":
        inner = ndimage.binary_erosion(liver, iterations=5)
        spots = scatter(rng, inner, int(rng.integers(4, 7)), 12)
        sizes = rng.uniform(4, 5.2, len(spots)) * dial.size
        drawn = [blob(rng, p, s, dial.wobble) for p, s in zip(spots, sizes, strict=True)]
        return np.logical_or.reduce(drawn) & liver
    if pattern == "large bright disc":
        return blob(rng, aorta, rng.uniform(11.5, 14) * dial.size, dial.wobble)
    return None
