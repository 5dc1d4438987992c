"""Images and masks in the formats hospitals store, and the sentence about each that fails."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qoq_lib.data.readers import (
    MediaError,
    View,
    boxes_of,
    look_of,
    read_images,
    read_label_map,
    read_mask,
    stored_images,
)

RAMP = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)


def read_image(path: Path) -> Image.Image:
    """The one image of a picture."""
    [image] = read_images(path)
    return image


def cell(path: Path, embed: bool = True) -> dict:
    """What a table stores of a picture."""
    [stored] = stored_images(path)
    return stored.field(embed)


@pytest.mark.parametrize("suffix", ["pgm", "bmp", "tif", "png"])
def test_lossless_grey_formats_keep_every_pixel(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP).save(path)
    image = read_image(path)
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), RAMP)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_images_are_scaled_to_their_own_range(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.array([[1000, 1100], [1150, 1200]], dtype=np.uint16)).save(path)
    assert np.asarray(read_image(path)).tolist() == [[0, 128], [191, 255]]


def test_a_constant_16_bit_image_is_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 500, dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png")).max() == 0


def test_float_tiffs_are_scaled_and_nan_is_refused(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.5], [0.25, 1.0]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.asarray(read_image(tmp_path / "a.tif")).tolist() == [[0, 128], [64, 255]]
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "b.tif")
    with pytest.raises(MediaError, match=r"b\.tif holds NaN"):
        read_image(tmp_path / "b.tif")


def test_palette_transparent_bilevel_and_cmyk_images(tmp_path: Path) -> None:
    red = Image.new("RGB", (8, 6), (255, 0, 0))
    red.quantize(4).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").getpixel((0, 0)) == (255, 0, 0)
    Image.new("RGBA", (8, 6), (200, 100, 50, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").getpixel((0, 0)) == (0, 0, 0)
    Image.new("1", (8, 6), 1).save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png").getpixel((0, 0)) == 255
    red.convert("CMYK").save(tmp_path / "print.jpg")
    assert read_image(tmp_path / "print.jpg").mode == "RGB"


def test_an_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (6, 8)
    assert cell(tmp_path / "a.jpg")["bytes"] == (tmp_path / "a.jpg").read_bytes()


def test_the_format_counts_and_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.jpg", format="TIFF")
    data = cell(tmp_path / "a.jpg")["bytes"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data), formats=["PNG"])), RAMP)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_plain_files_keep_their_own_bytes(tmp_path: Path, name: str) -> None:
    Image.fromarray(RAMP).convert("RGB").save(tmp_path / name)
    assert cell(tmp_path / name) == {"bytes": (tmp_path / name).read_bytes(), "path": None}
    assert cell(tmp_path / name, embed=False) == {"bytes": None, "path": str(tmp_path / name)}


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.pgm", "a.tif"])
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=f"{name} cannot be read"):
        read_image(path)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_a_damaged_image_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    buffer = io.BytesIO()
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF", "PPM", "BMP", "WEBP"]))
    Image.fromarray(RAMP).save(buffer, format=kind)
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        assert read_image(path).mode in ("L", "RGB")
    except MediaError as error:
        assert str(path) in str(error)


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.png is missing"):
        read_image(tmp_path / "none.png")
    for name, content in (("empty.png", b""), ("text.png", b"not an image"), ("x.gif", b"GIF89a")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=f"{name} cannot be read"):
            read_image(tmp_path / name)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(MediaError, match=r"a\.png declares more than 500 pixels"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(MediaError, match=r"a\.png declares more than 100 pixels"):
        read_image(tmp_path / "a.png")


def test_a_multi_page_tiff_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(RAMP), Image.fromarray(RAMP)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(MediaError, match="has 2 pages"):
        read_image(tmp_path / "a.tif")


def test_masks_are_united_whatever_their_lesion_value(tmp_path: Path) -> None:
    one, two, three = (np.zeros((20, 30), dtype=np.uint8) for _ in range(3))
    one[2:5, 3:9] = 1
    two[10:12, 20:25] = 255
    three[15:18, 2:4] = 1
    Image.fromarray(one).save(tmp_path / "one.png")
    Image.fromarray(two).convert("RGBA").save(tmp_path / "two.png")
    palette = Image.fromarray(three).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "three.tif")
    paths = [tmp_path / name for name in ("one.png", "two.png", "three.tif")]
    Image.fromarray(RAMP).save(tmp_path / "image.png")
    mask = read_mask(paths, stored_images(tmp_path / "image.png"))
    assert mask is not None and mask.mode == "L"
    assert np.array_equal(np.asarray(mask), ((one + two + three) > 0) * 255)
    assert boxes_of(mask) == [[3, 2, 9, 5], [20, 10, 25, 12], [2, 15, 4, 18]]


def test_no_mask_an_empty_mask_and_a_mask_of_another_size(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "image.png")
    images = stored_images(tmp_path / "image.png")
    assert read_mask([], images) is None
    Image.new("L", (30, 20)).save(tmp_path / "empty.png")
    empty = read_mask([tmp_path / "empty.png"], images)
    assert empty is not None and boxes_of(empty) == []
    Image.new("L", (31, 20)).save(tmp_path / "wide.png")
    with pytest.raises(MediaError, match="31 x 20 pixels and its image 30 x 20"):
        read_mask([tmp_path / "wide.png"], images)


def test_masks_of_numbered_classes_and_parts_of_images(tmp_path: Path) -> None:
    classes = np.zeros((20, 30), dtype=np.uint8)
    classes[2:6, 4:9], classes[10:14, 20:26] = 1, 2
    Image.fromarray(classes).save(tmp_path / "classes.png")
    Image.fromarray(RAMP).save(tmp_path / "image.png")
    assert np.array_equal(read_label_map(tmp_path / "classes.png"), classes)
    images = stored_images(tmp_path / "image.png", View(crop=(15, 5, 30, 20)))
    assert np.array_equal(np.asarray(images[0].image), RAMP[5:20, 15:30])
    for values, expected in (((1,), []), ((2,), [[5, 5, 11, 9]]), ((1, 2), [[5, 5, 11, 9]])):
        mask = read_mask([tmp_path / "classes.png"], images, values, (15, 5, 30, 20))
        assert mask is not None and boxes_of(mask) == expected
    with pytest.raises(MediaError, match=r"30 x 20 pixels and no part \[15, 5, 31, 20\]"):
        read_images(tmp_path / "image.png", View(crop=(15, 5, 31, 20)))
    Image.new("RGB", (30, 20)).save(tmp_path / "colour.png")
    with pytest.raises(MediaError, match="is in colour"):
        read_label_map(tmp_path / "colour.png")


def test_a_copy_looks_the_same_and_another_image_does_not(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.linspace(0, 3, 90), np.linspace(0, 2, 60))
    scene = Image.fromarray(np.uint8(120 + 60 * np.sin(3 * x) * np.cos(2 * y) + 20 * x))
    scene.save(tmp_path / "copy.jpg", quality=60)
    copies = [Image.open(tmp_path / "copy.jpg"), scene.resize((180, 120)), scene.convert("RGB")]
    for copy in (*copies, scene.point(lambda level: level // 2 + 40)):
        assert (look_of(copy) ^ look_of(scene)).bit_count() <= 1
    assert (look_of(scene.transpose(Image.Transpose.ROTATE_180)) ^ look_of(scene)).bit_count() > 9
