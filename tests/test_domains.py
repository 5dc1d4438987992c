"""The domains' colours stay apart, for readers who do not see all of them, too."""

from itertools import combinations

import numpy as np
import pytest

from qoq_lib.domains import DOMAINS

# Machado, Oliveira and Fernandes 2009 (10.1109/TVCG.2009.113), severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def seen(colour: str, vision: str) -> np.ndarray:
    """The sRGB colour in CIELAB (D65) as a reader of that vision sees it."""
    rgb = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    changed = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    shares = np.array(to_xyz) @ changed / [0.9505, 1.0, 1.089]
    x, y, z = np.where(shares > 0.008856, np.cbrt(shares), 7.787 * shares + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_no_two_domains_look_alike(vision: str) -> None:
    distances = {
        (one.name, two.name): np.linalg.norm(seen(one.colour, vision) - seen(two.colour, vision))
        for one, two in combinations(DOMAINS.values(), 2)
    }
    pair = min(distances, key=lambda pair: distances[pair])
    assert distances[pair] > 12, f"{pair} are {distances[pair]:.1f} apart"
