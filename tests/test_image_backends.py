"""Image processing without torchvision, and with it: the same size, nearly the same pixels."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor, Qwen2VLImageProcessorPil
from transformers.utils import is_torchvision_available

from qoq_lib.model.pixels import model_view

BOUNDS = {"shortest_edge": 56 * 56, "longest_edge": 12_845_056}
GREY_LEVEL = 1 / 255 / 0.26  # of the normalised pixels: CLIP's smallest standard deviation
needs_torchvision = pytest.mark.skipif(
    not is_torchvision_available(), reason="torchvision is not installed"
)


def gradients(width: int, height: int) -> Image.Image:
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)
    bands = [np.outer(y, x), np.outer(1 - y, x), np.outer(np.sqrt(y), x**2)]
    return Image.fromarray((255 * np.stack(bands, axis=-1)).astype(np.uint8))


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels(processor: Any, image: Image.Image) -> tuple[np.ndarray, list[list[int]]]:
    features = processor(images=[image], return_tensors="pt")
    return features["pixel_values"].numpy(), features["image_grid_thw"].tolist()


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed")
def test_without_torchvision_the_processor_is_pils(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    tiny[1].save_pretrained(tmp_path)
    for processor in (tiny[1], AutoProcessor.from_pretrained(tmp_path)):
        assert type(processor.image_processor) is Qwen2VLImageProcessorPil
        assert not hasattr(processor, "video_processor")
    assert "torchvision" not in sys.modules


@needs_torchvision
def test_with_torchvision_the_processor_is_the_fast_one(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    tiny[1].save_pretrained(tmp_path)
    for processor in (tiny[1], AutoProcessor.from_pretrained(tmp_path)):
        assert type(processor.image_processor).__name__ == "Qwen2VLImageProcessor"
        assert not hasattr(processor, "video_processor")


@needs_torchvision
@pytest.mark.parametrize("size", [(56, 56), (300, 200), (517, 389), (61, 97), (40, 30)])
def test_both_backends_show_the_same_pixels(size: tuple[int, int]) -> None:
    from transformers import Qwen2VLImageProcessor

    fast, pil = Qwen2VLImageProcessor(size=BOUNDS), Qwen2VLImageProcessorPil(size=BOUNDS)
    for image in (gradients(*size), noise(*size)):
        (one, grid), (other, same_grid) = pixels(fast, image), pixels(pil, image)
        assert grid == same_grid
        assert np.abs(one - other).mean() < GREY_LEVEL
    (one, _), (other, _) = pixels(fast, gradients(*size)), pixels(pil, gradients(*size))
    assert np.abs(one - other).max() < 3 * GREY_LEVEL
    # What training and evaluation feed has been resized before: there both agree to rounding.
    view = model_view({"images": [noise(*size)], "boxes": None}, pil)["images"][0]
    np.testing.assert_allclose(pixels(fast, view)[0], pixels(pil, view)[0], atol=1e-5)
