"""Writers of small volumes, CT slices and videos in real formats."""

import gzip
import importlib.util
import struct
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

HAS_VIDEOS = importlib.util.find_spec("av") is not None


def nifti(path: Path, voxels: np.ndarray) -> None:
    """A compressed NIfTI-1 volume of 1 mm voxels, x to the left, y to the back, z to the head.

    ``voxels`` are slices x rows x columns, int16.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    depth, height, width = voxels.shape
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, width, height, depth, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)  # int16
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<2f", header, 108, 352.0, 1.0)
    struct.pack_into("<h", header, 254, 1)
    struct.pack_into("<12f", header, 280, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0)
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + voxels.astype("<i2").tobytes(), mtime=0))


def metaimage(path: Path, voxels: np.ndarray, lowest: float = 0.0, upwards: bool = True) -> None:
    """A MetaImage of 1 mm voxels, header ``.mhd`` and ``.raw``; ``upwards`` or from the head down.

    ``voxels`` are slices x rows x columns from the lowest slice, at ``lowest`` mm, up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    depth, height, width = voxels.shape
    kind = {"int16": "MET_SHORT", "uint8": "MET_UCHAR"}[voxels.dtype.name]
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = 1 0 0 0 1 0 0 0 {1 if upwards else -1}",
        f"Offset = 0 0 {lowest if upwards else lowest + depth - 1}",
        "CenterOfRotation = 0 0 0",
        "ElementSpacing = 1 1 1",
        f"DimSize = {width} {height} {depth}",
        f"ElementType = {kind}",
        f"ElementDataFile = {path.stem}.raw",
    ]
    path.write_text("\n".join(lines) + "\n")
    stored = voxels if upwards else voxels[::-1]
    path.with_suffix(".raw").write_bytes(np.ascontiguousarray(stored).tobytes())


def ct_slice(path: Path, hounsfield: np.ndarray) -> None:
    """An uncompressed DICOM slice of a CT."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, "1.2.3"
    data.Rows, data.Columns = hounsfield.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.RescaleIntercept, data.RescaleSlope = -1024, 1
    data.PixelData = (hounsfield + 1024).astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)


def video(path: Path, seed: int, frames: int = 8, side: int = 32) -> None:
    """A grey video of noise."""
    noise = np.random.default_rng(seed).integers(0, 255, (frames, side, side), dtype=np.uint8)
    film_strip(path, noise)


def film_strip(path: Path, frames: np.ndarray) -> None:
    """A grey video of ``frames``, time x height x width, MP4 or AVI by its name.

    Bytes that no test may decode where PyAV is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not HAS_VIDEOS:
        path.write_bytes(b"video" + frames.tobytes())
        return
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000  # so that edges stay where they are
        for pixels in frames:
            grey = np.repeat(pixels[:, :, None], 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
