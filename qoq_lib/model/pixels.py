"""The one place that converts between an original image's pixels and the model's.

The model sees an image after Qwen2.5-VL's smart resize (sides are multiples of 28, area within the
processor's bounds) and speaks of boxes in those pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize


def model_size(width: int, height: int, image_processor: Any) -> tuple[int, int]:
    """(width, height) in pixels of an image as the model sees it."""
    new_height, new_width = smart_resize(
        height,
        width,
        factor=image_processor.patch_size * image_processor.merge_size,
        min_pixels=image_processor.size["shortest_edge"],
        max_pixels=image_processor.size["longest_edge"],
    )
    return new_width, new_height


def scale_boxes(
    boxes: Sequence[Sequence[float]], source: tuple[int, int], target: tuple[int, int]
) -> list[list[float]]:
    """Boxes ``[x1, y1, x2, y2]`` from an image of ``source`` (width, height) to ``target``."""
    x, y = target[0] / source[0], target[1] / source[1]
    return [[x1 * x, y1 * y, x2 * x, y2 * y] for x1, y1, x2, y2 in boxes]


def model_view(row: Mapping[str, Any], image_processor: Any) -> dict[str, Any]:
    """A copy of the row with images as the model sees them and boxes in their pixels."""
    images: list[Image.Image] = list(row["images"] or [])
    sizes = [model_size(*image.size, image_processor) for image in images]
    view = dict(row)
    view["images"] = [
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        for image, size in zip(images, sizes, strict=True)
    ]
    if row["boxes"]:
        view["boxes"] = scale_boxes(row["boxes"], images[0].size, sizes[0])
    return view
