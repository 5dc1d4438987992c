"""DICOM as scanners write it: rescale, window, inversion, frames, colour, compression, damage."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from qoq_lib.data.readers import MediaError, ReaderMissing, View, read_images, read_mask
from qoq_lib.data.readers import stored_images as stored

WHOLE = View()
HOUNSFIELD = np.array([[-1000, -160, 40], [140, 240, 1000]])
SYNTAX = ExplicitVRLittleEndian


def write(path: Path, pixels: np.ndarray, **elements: Any) -> Dataset:
    """A DICOM of ``pixels`` (frames x) rows x columns (x 3), with ``elements`` beside them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = SYNTAX
    dataset = Dataset()
    dataset.file_meta = meta
    colour = pixels.shape[-1] == 3 and pixels.ndim > 2
    rows, columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    bits = pixels.dtype.itemsize * 8
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def ct(path: Path, **elements: Any) -> Dataset:
    """A CT slice of ``HOUNSFIELD``, stored as CTs are: shifted by 1024, unsigned."""
    stored_values = (HOUNSFIELD + 1024).astype(np.uint16)
    return write(path, stored_values, RescaleSlope=1, RescaleIntercept=-1024, **elements)


def grey(path: Path, view: View = WHOLE) -> list:
    [image] = read_images(path, view)
    return np.asarray(image).tolist()


def test_a_ct_is_rescaled_and_windowed_by_its_source_or_itself(tmp_path: Path) -> None:
    ct(tmp_path / "a.dcm", WindowCenter=[40, 300], WindowWidth=[400, 1500])
    assert grey(tmp_path / "a.dcm") == [[0, 0, 128], [191, 255, 255]]
    lung = View(window=(-600, 1500))
    assert grey(tmp_path / "a.dcm", lung) == [[60, 202, 236], [253, 255, 255]]
    ct(tmp_path / "b.dicom")
    assert grey(tmp_path / "b.dicom") == [[0, 107, 133], [145, 158, 255]]


def test_monochrome1_is_turned_so_that_air_is_black(tmp_path: Path) -> None:
    film = np.array([[0, 4095], [2048, 1024]], dtype=np.uint16)
    write(tmp_path / "a.dcm", film, PhotometricInterpretation="MONOCHROME1", BitsStored=12)
    assert grey(tmp_path / "a.dcm") == [[255, 0], [127, 191]]


def test_a_table_or_curve_of_the_file_is_applied(tmp_path: Path) -> None:
    ramp = np.arange(0, 256, 51, dtype=np.uint8)[None]
    curve = {"WindowCenter": 128, "WindowWidth": 64, "VOILUTFunction": "SIGMOID"}
    write(tmp_path / "a.dcm", ramp, **curve)
    [values] = grey(tmp_path / "a.dcm")
    assert values == sorted(values) and values[0] == 0 and values[-1] == 255
    assert values[2] < 60 and values[3] > 195  # steeper in the middle than the ramp's 102 and 153


def test_frames_are_evenly_spaced_or_those_asked_for(tmp_path: Path) -> None:
    clip = np.arange(8, dtype=np.uint8).repeat(8).reshape(8, 2, 4) * 10
    write(tmp_path / "a.dcm", clip, NumberOfFrames=8, WindowCenter=127.5, WindowWidth=255)
    assert [image.getpixel((0, 0)) for image in read_images(tmp_path / "a.dcm")] == [10, 30, 50, 70]
    chosen = read_images(tmp_path / "a.dcm", View(frames=(7, 0)))
    assert [image.getpixel((0, 0)) for image in chosen] == [70, 0]
    with pytest.raises(MediaError, match="has 8 frames and no frame 8"):
        read_images(tmp_path / "a.dcm", View(frames=(8,)))


def test_colour_stays_colour(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    write(tmp_path / "a.dcm", pixels)
    [image] = read_images(tmp_path / "a.dcm")
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), pixels)


def jpeg2000(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    return buffer.getvalue()


def test_compressed_files_read_as_plain_ones(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4000, (32, 40), dtype=np.uint16)
    plain = write(tmp_path / "plain.dcm", values)
    expected = grey(tmp_path / "plain.dcm")
    plain.compress(RLELossless)
    plain.save_as(tmp_path / "rle.dcm", enforce_file_format=True)
    assert grey(tmp_path / "rle.dcm") == expected
    plain.PixelData = encapsulate([jpeg2000(values)])
    plain.file_meta.TransferSyntaxUID = JPEG2000Lossless
    plain.save_as(tmp_path / "j2k.dcm", enforce_file_format=True)
    assert grey(tmp_path / "j2k.dcm") == expected


def test_lossless_jpeg_reads_with_the_extra(tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm", reason="needs the extra 'data'")
    values = np.random.default_rng(0).integers(0, 4000, (32, 40), dtype=np.uint16)
    write(tmp_path / "plain.dcm", values)
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(tmp_path / "plain.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "lossless.dcm").file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert grey(tmp_path / "lossless.dcm") == grey(tmp_path / "plain.dcm")


def test_a_compression_without_its_library_stops_the_run_and_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = ct(tmp_path / "a.dcm")
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    with pytest.raises(
        ReaderMissing, match=r"compressed as RLE Lossless: pip install '.*\[data\]'"
    ):
        read_images(tmp_path / "a.dcm")


def test_damaged_foreign_and_absurd_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    with pytest.raises(MediaError, match=r"a\.dcm is missing"):
        read_images(path)
    path.write_bytes(b"not a DICOM" * 50)
    with pytest.raises(MediaError, match=r"a\.dcm cannot be read"):
        read_images(path)
    values = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    write(path, values)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(MediaError, match=r"a\.dcm cannot be read"):
        read_images(path)
    write(path, values, Rows=65000, Columns=65000)
    with pytest.raises(MediaError, match=r"a\.dcm declares 65000 x 65000 pixels"):
        read_images(path)
    write(path, values, NumberOfFrames=10**6)
    with pytest.raises(MediaError, match=r"a\.dcm declares 1000000 frames"):
        read_images(path)
    dataset = write(path, values)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(MediaError, match=r"a\.dcm is a deflated DICOM"):
        read_images(path)


def test_a_dicom_mask_marks_its_image(tmp_path: Path) -> None:
    ct(tmp_path / "image.dcm")
    marked = np.zeros((2, 3), dtype=np.uint8)
    marked[1, 1:] = 1
    write(tmp_path / "mask.dcm", marked)
    mask = read_mask([tmp_path / "mask.dcm"], stored(tmp_path / "image.dcm"))
    assert mask is not None and np.asarray(mask).tolist() == (marked * 255).tolist()
