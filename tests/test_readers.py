"""Images, masks and ECGs in the formats hospitals store, and the sentence about each that fails."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qoq_lib.data.readers import (
    MediaError,
    View,
    boxes_of,
    content_hash,
    look_of,
    read_ecg,
    read_images,
    read_label_map,
    read_mask,
    stored_images,
)

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
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


@pytest.fixture
def millivolts() -> np.ndarray:
    """12 leads x 1,000 samples on a grid of microvolts."""
    values = np.random.default_rng(0).normal(0, 0.5, (12, 1000))
    return np.round(values, 3).astype(np.float32)


def write_dat(folder: Path, signal: np.ndarray, name: str = "r1") -> Path:
    """Write leads x samples in mV as a WFDB record with a .dat signal."""
    wfdb.wrsamp(
        name,
        fs=500,
        units=["mV"] * len(signal),
        sig_name=LEADS[: len(signal)],
        p_signal=signal.T.astype(np.float64),
        fmt=["16"] * len(signal),
        adc_gain=[1000.0] * len(signal),
        baseline=[0] * len(signal),
        comments=["Age: 60", "Dx: 426783006"],
        write_dir=str(folder),
    )
    return folder / name


def write_mat(folder: Path, signal: np.ndarray, unit: str = "mV", record: str = "r1") -> Path:
    """Write leads x samples in mV as the PhysioNet challenges do: a MATLAB 4 file and a header."""
    scipy.io.savemat(
        folder / "r1.mat", {"val": np.round(signal * 1000).astype(np.int16)}, format="4"
    )
    lines = [f"{record} {len(signal)} 500 {signal.shape[1]}"]
    names = [lead.upper() for lead in LEADS]
    lines += [f"r1.mat 16+24 1000(0)/{unit} 16 0 0 0 0 {name}" for name in names[: len(signal)]]
    (folder / "r1.hea").write_text("\n".join([*lines, "# Dx: 426783006", ""]))
    return folder / "r1"


def test_a_dat_record_is_read_in_millivolts(tmp_path: Path, millivolts: np.ndarray) -> None:
    ecg = read_ecg(write_dat(tmp_path, millivolts))
    assert ecg.signal.dtype == np.float32
    np.testing.assert_allclose(ecg.signal, millivolts, atol=1e-6)
    assert (ecg.leads, ecg.rate_hz) == (LEADS, 500.0)
    assert "Dx: 426783006" in ecg.comments


@pytest.mark.parametrize("unit", ["mV", "mv", "/mV"])
@pytest.mark.parametrize("ending", ["", ".hea", ".mat"])
def test_a_mat_record_is_read_under_any_name(
    tmp_path: Path, millivolts: np.ndarray, unit: str, ending: str
) -> None:
    write_mat(tmp_path, millivolts, unit)
    ecg = read_ecg(tmp_path / f"r1{ending}")
    np.testing.assert_allclose(ecg.signal, millivolts, atol=1e-6)
    assert ecg.leads == LEADS


def test_a_header_whose_record_name_has_an_extension(
    tmp_path: Path, millivolts: np.ndarray
) -> None:
    ecg = read_ecg(write_mat(tmp_path, millivolts, record="r1.mat"))
    np.testing.assert_allclose(ecg.signal, millivolts, atol=1e-6)


def test_microvolts_become_millivolts_and_other_units_are_refused(
    tmp_path: Path, millivolts: np.ndarray
) -> None:
    ecg = read_ecg(write_mat(tmp_path, millivolts, "uV"))
    np.testing.assert_allclose(ecg.signal, millivolts / 1000, atol=1e-6)
    with pytest.raises(MediaError, match="'mmhg', which is no voltage"):
        read_ecg(write_mat(tmp_path, millivolts, "mmHg"))


@pytest.mark.parametrize("write", [write_dat, write_mat])
@pytest.mark.parametrize("kept", [0, 10, 24 + 24 * 500, -2, -24])
def test_a_truncated_ecg_is_refused(
    tmp_path: Path, millivolts: np.ndarray, write: Callable[..., Path], kept: int
) -> None:
    write(tmp_path, millivolts)
    [file] = [*tmp_path.glob("r1.dat"), *tmp_path.glob("r1.mat")]
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(MediaError, match=r"r1\.hea"):
        read_ecg(tmp_path / "r1")


def test_missing_samples_loose_electrodes_and_broken_headers_are_refused(
    tmp_path: Path, millivolts: np.ndarray
) -> None:
    with pytest.raises(MediaError, match=r"r1\.hea is missing"):
        read_ecg(tmp_path / "r1")
    gap = millivolts.copy()
    gap[3, 100] = np.nan
    with pytest.raises(MediaError, match=r"r1\.hea has samples marked as missing"):
        read_ecg(write_dat(tmp_path, gap))
    loose = millivolts.copy()
    loose[[1, 7]] = 0.25
    with pytest.raises(MediaError, match=r"r1\.hea is constant in II, V2, as of a loose electrode"):
        read_ecg(write_dat(tmp_path, loose))
    (tmp_path / "r1.dat").unlink()
    with pytest.raises(MediaError, match=r"r1\.hea cannot be read"):
        read_ecg(tmp_path / "r1")
    for text in ("", "nonsense", "r1 12 500 1000\nr1.dat 16", "r1.mat\n"):
        (tmp_path / "r1.hea").write_text(text)
        with pytest.raises(MediaError, match=r"r1\.hea"):
            read_ecg(tmp_path / "r1")


@pytest.mark.parametrize("name", ["../secret.mat", "/etc/secret.mat", "..\\secret.mat"])
def test_a_header_that_points_out_of_its_folder_is_refused(
    tmp_path: Path, millivolts: np.ndarray, name: str
) -> None:
    (tmp_path / "in").mkdir()
    write_mat(tmp_path / "in", millivolts)
    (tmp_path / "in" / "r1.mat").rename(tmp_path / "secret.mat")
    header = tmp_path / "in" / "r1.hea"
    for record in ("r1", "r1.mat"):  # wfdb reads the first, the second is renamed before
        lines = header.read_text().splitlines()
        lines = [lines[0].replace(lines[0].split()[0], record)] + [
            f"{name} {line.partition(' ')[2]}" if not line.startswith("#") else line
            for line in lines[1:]
        ]
        header.write_text("\n".join([*lines, ""]))
        with pytest.raises(MediaError, match=r"r1\.hea points out of its folder"):
            read_ecg(tmp_path / "in" / "r1")


def test_a_header_of_absurd_length_is_refused(tmp_path: Path, millivolts: np.ndarray) -> None:
    write_mat(tmp_path, millivolts)
    header = tmp_path / "r1.hea"
    header.write_text(header.read_text().replace("500 1000", "500 99999999999", 1))
    with pytest.raises(MediaError, match="declares 12 leads of 99999999999 samples"):
        read_ecg(tmp_path / "r1")


def test_a_copy_looks_the_same_and_another_image_does_not(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.linspace(0, 3, 90), np.linspace(0, 2, 60))
    scene = Image.fromarray(np.uint8(120 + 60 * np.sin(3 * x) * np.cos(2 * y) + 20 * x))
    scene.save(tmp_path / "copy.jpg", quality=60)
    copies = [Image.open(tmp_path / "copy.jpg"), scene.resize((180, 120)), scene.convert("RGB")]
    for copy in (*copies, scene.point(lambda level: level // 2 + 40)):
        assert (look_of(copy) ^ look_of(scene)).bit_count() <= 1
    assert (look_of(scene.transpose(Image.Transpose.ROTATE_180)) ^ look_of(scene)).bit_count() > 9


def test_hashes_tell_content_and_not_name(tmp_path: Path, millivolts: np.ndarray) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(RAMP).save(tmp_path / name)
    assert content_hash([tmp_path / "a.png"]) == content_hash([tmp_path / "b.png"])
    one = write_dat(tmp_path, millivolts, "one")
    two = write_dat(tmp_path, millivolts, "two")
    assert content_hash([], one) == content_hash([], two)
    with pytest.raises(MediaError, match=r"c\.png is listed but missing"):
        content_hash([tmp_path / "c.png"])
