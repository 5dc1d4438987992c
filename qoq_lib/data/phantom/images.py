"""One entry to the image families: domain and pattern in, picture and mask out."""

from collections.abc import Callable

from numpy.random import Generator

from qoq_lib.data.phantom.brain_and_sound import draw_mri, draw_ultrasound
from qoq_lib.data.phantom.colour import draw_dermoscopy, draw_fundus, draw_pathology
from qoq_lib.data.phantom.drawing import Dial, Drawing
from qoq_lib.data.phantom.xray import draw_chest, draw_ct, draw_mammography

FAMILIES: dict[str, Callable[[str, Generator, Dial], Drawing]] = {
    "chest_xray": draw_chest,
    "mammography": draw_mammography,
    "dermoscopy": draw_dermoscopy,
    "ct": draw_ct,
    "fundus": draw_fundus,
    "ultrasound": draw_ultrasound,
    "mri": draw_mri,
    "pathology": draw_pathology,
}


def draw(domain: str, pattern: str, rng: Generator, difficulty: float) -> Drawing:
    """Draw ``pattern`` in the style of an image ``domain`` (any of the nine but ``ecg``)."""
    return FAMILIES[domain](pattern, rng, Dial(difficulty))
