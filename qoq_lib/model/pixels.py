"""Which backend turns images into the model's input, at which size, and boxes to and fro.

The one place that converts between an original image's pixels, the model's, and 0 to 1.

The model sees an image after Qwen2.5-VL's smart resize (sides are multiples of 28, area within the
processor's bounds) and speaks of boxes in those pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from PIL import Image
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.utils import is_torchvision_available

from qoq_lib.runs import OneSentenceError

Frame = Literal["original", "model", "normalised"]
SETTLE = 8  # resizes tried; two are enough unless the bounds are too tight


def image_processor_class() -> Any:
    """The torchvision backend, where there is one: without it AutoImageProcessor even fails."""
    if is_torchvision_available():
        from transformers import Qwen2VLImageProcessor  # here: it warns where there is none

        return Qwen2VLImageProcessor
    return Qwen2VLImageProcessorPil


class ImageSizeError(OneSentenceError, ValueError):
    """An image that has no size the model could see it at; the message says why."""


def limit_area(image_processor: Any, smallest: int, largest: int) -> None:
    """Set, in place, the areas in pixels between which the processor resizes every image."""
    kind = type(image_processor.size)
    image_processor.size = kind(shortest_edge=smallest, longest_edge=largest)


def model_size(width: int, height: int, image_processor: Any) -> tuple[int, int]:
    """(width, height) in pixels of an image as the model sees it.

    A size that the processor leaves as it is: for strips and tight bounds one smart resize does not
    reach it, and the boxes would be in pixels of an image that the model never saw.

    Raises:
        ImageSizeError: the image is a strip of more than 200:1, or the processor's bounds are so
            tight that no size is ever left alone.
    """
    size = height, width
    for _ in range(SETTLE):
        try:
            resized = smart_resize(
                *size,
                factor=image_processor.patch_size * image_processor.merge_size,
                min_pixels=image_processor.size["shortest_edge"],
                max_pixels=image_processor.size["longest_edge"],
            )
        except ValueError as error:
            raise ImageSizeError(f"An image of {width} x {height} pixels: {error}.") from error
        if resized == size:
            return size[1], size[0]
        size = resized
    raise ImageSizeError(
        f"An image of {width} x {height} pixels finds no size within the image processor's bounds "
        f"{dict(image_processor.size)}: set 'longest_edge' to at least four times 'shortest_edge'."
    )


def convert_boxes(
    boxes: Sequence[Sequence[float]],
    size: tuple[int, int],
    image_processor: Any,
    *,
    source: Frame,
    target: Frame,
) -> list[list[float]]:
    """Boxes ``[x1, y1, x2, y2]`` of one image from one frame to another, unrounded.

    Args:
        boxes: coordinates in ``source``, origin top left.
        size: (width, height) of the original image in pixels.
        image_processor: gives ``model_size``.
        source: ``"original"`` (the original image's pixels), ``"model"`` (pixels of the image after
            smart resize, which the model sees and says) or ``"normalised"`` (0 to 1 of each side).
        target: likewise.

    Raises:
        ImageSizeError: as ``model_size``.
    """
    extents = {
        "original": size,
        "model": model_size(*size, image_processor),
        "normalised": (1.0, 1.0),
    }
    x, y = (there / here for here, there in zip(extents[source], extents[target], strict=True))
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
        view["boxes"] = convert_boxes(
            row["boxes"], images[0].size, image_processor, source="original", target="model"
        )
    return view
