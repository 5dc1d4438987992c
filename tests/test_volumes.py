"""Volumes and videos: the same patient in any axis order, windows, masks by slice, damage."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qoq_lib.data.readers import (
    MediaError,
    ReaderMissing,
    View,
    boxes_of,
    marked_frames,
    read_images,
    read_mask,
    stored_images,
)

WHOLE = View()
SLICES, ROWS, COLUMNS = 12, 5, 7


def body() -> np.ndarray:
    """Slices x rows x columns in HU: slice k is at 10 k, with a dot in front on the right side."""
    volume = np.repeat(np.arange(SLICES) * 10, ROWS * COLUMNS).reshape(SLICES, ROWS, COLUMNS)
    volume[:, 0, 0] = 1000
    return volume.astype(np.int16)


def write_nifti(path: Path, volume: np.ndarray, axes: str = "LPS", slope: float = 1.0) -> None:
    """``volume`` (slices x rows x columns) stored along ``axes``, as KiTS23 and others differ."""
    nibabel = pytest.importorskip("nibabel", reason="needs the extra 'data'")
    orientations = nibabel.orientations
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt("LPS"), orientations.axcodes2ornt(axes)
    )
    stored = orientations.apply_orientation(volume.transpose(2, 1, 0), turn)
    affine = np.diag([-1.0, -1.0, 3.0, 1.0]) @ orientations.inv_ornt_aff(turn, volume.shape[::-1])
    image = nibabel.Nifti1Image(stored, affine)
    image.header.set_slope_inter(slope, 0)
    nibabel.save(image, path)


def write_meta(path: Path, volume: np.ndarray) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="needs the extra 'data'")
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(path))


def write_video(path: Path, frames: np.ndarray, codec: str) -> None:
    av = pytest.importorskip("av", reason="needs the extra 'data'")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def greys(path: Path, view: View = WHOLE) -> list[int]:
    return [int(np.asarray(image)[2, 3]) for image in read_images(path, view)]


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SPL", "IAR", "PLS"])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_nifti_shows_axial_slices_whatever_its_axes(
    tmp_path: Path, axes: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    write_nifti(path, body(), axes)
    view = View(window=(500, 1000))
    images = read_images(path, view)
    assert greys(path, view) == [3, 10, 18, 26]  # slices 1, 4, 7, 10 of 0 to 1000 HU
    assert all(image.size == (COLUMNS, ROWS) and image.mode == "L" for image in images)
    assert all(image.getpixel((0, 0)) == 255 for image in images)  # right front is top left


def test_windows_slopes_and_the_volumes_own_range(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", body(), slope=2.0)
    assert greys(tmp_path / "a.nii.gz", View(window=(500, 1000), frames=(11,))) == [56]
    assert greys(tmp_path / "a.nii.gz", View(frames=(0, 11))) == [0, 28]
    write_nifti(tmp_path / "flat.nii", np.zeros((2, ROWS, COLUMNS), dtype=np.int16))
    assert greys(tmp_path / "flat.nii") == [0, 0]


@pytest.mark.parametrize("suffix", ["mhd", "mha"])
def test_a_metaimage_reads_like_a_nifti(tmp_path: Path, suffix: str) -> None:
    write_meta(tmp_path / f"a.{suffix}", body())
    assert greys(tmp_path / f"a.{suffix}", View(window=(500, 1000))) == [3, 10, 18, 26]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mhd", "a.mha"])
def test_a_truncated_volume_is_refused_and_not_filled_with_zeros(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 999, (9, 32, 32)).astype(np.int16)
    (write_nifti if ".nii" in name else write_meta)(path, noise)
    cut = tmp_path / "a.raw" if name == "a.mhd" else path
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(MediaError, match=f"{name} cannot be read"):
        read_images(path)


def test_absurd_sizes_and_a_gzip_bomb_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", body())
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[42:48] = np.array([30000, 30000, 30000], dtype="<i2").tobytes()  # dim[1:4]
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(data) + bytes(2**20)))
    with pytest.raises(MediaError, match=r"a\.nii\.gz declares 30000 x 30000 pixels"):
        read_images(tmp_path / "a.nii.gz")
    data[42:48] = np.array([7000, 7000, 7000], dtype="<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(MediaError, match=r"a\.nii declares 7000 x 7000 x 7000 voxels"):
        read_images(tmp_path / "a.nii")


def test_four_dimensions_are_refused(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="needs the extra 'data'")
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((3, 3, 3, 2), np.int16), np.eye(4)), tmp_path / "a.nii"
    )
    with pytest.raises(MediaError, match="has 4 dimensions"):
        read_images(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/passwd", "..\\secret.raw", "LIST", ""])
def test_a_metaimage_that_points_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_meta(folder / "a.mhd", body())
    (folder / "a.raw").rename(tmp_path / "secret.raw")
    text = (folder / "a.mhd").read_text().replace("a.raw", name)
    (folder / "a.mhd").write_text(text)
    with pytest.raises(MediaError, match=r"a\.mhd (points out of its folder|is spread over files)"):
        read_images(folder / "a.mhd")


def test_masks_follow_the_slices_of_their_volume(tmp_path: Path) -> None:
    mask = np.zeros((SLICES, ROWS, COLUMNS), dtype=np.uint8)
    mask[2:9, 1:3, 2:5] = 1  # the organ
    mask[5, 3:5, 4:7] = 2  # the lesion
    write_nifti(tmp_path / "image.nii.gz", body())
    write_nifti(tmp_path / "mask.nii.gz", mask, "SPL")
    masks = [tmp_path / "mask.nii.gz"]
    assert marked_frames(masks) == (2, 4, 6, 8)
    assert marked_frames(masks, (2,)) == (5,)
    assert marked_frames(masks, (9,)) == () == marked_frames([])
    images = stored_images(tmp_path / "image.nii.gz", View(frames=(2, 5)))
    for values, boxes in ((), [[2, 1, 7, 5]]), ((1,), [[2, 1, 5, 3]]), ((2,), [[4, 3, 7, 5]]):
        united = read_mask(masks, images, values)
        assert united is not None and boxes_of(united) == boxes
    write_nifti(tmp_path / "short.nii", mask[:-1])
    with pytest.raises(MediaError, match="has 11 frames and its image 12"):
        read_mask([tmp_path / "short.nii"], images)


def clip(count: int = 20) -> np.ndarray:
    """Frames that get brighter, 64 x 48 pixels."""
    return (np.arange(count, dtype=np.uint8) * 12).repeat(48 * 64 * 3).reshape(count, 48, 64, 3)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mjpeg")])
def test_a_video_gives_evenly_spaced_frames(tmp_path: Path, name: str, codec: str) -> None:
    write_video(tmp_path / name, clip(), codec)
    images = read_images(tmp_path / name)
    assert [image.mode for image in images] == ["RGB"] * 4
    assert [image.size for image in images] == [(64, 48)] * 4
    means = [float(np.asarray(image).mean()) for image in images]
    np.testing.assert_allclose(means, [24, 84, 144, 204], atol=6)  # frames 2, 7, 12, 17
    [last] = read_images(tmp_path / name, View(frames=(19,)))
    assert abs(float(np.asarray(last).mean()) - 228) < 6


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mjpeg")])
def test_damaged_and_disguised_videos_are_refused(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), dtype=np.uint8)
    write_video(path, noise, codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=name):
        read_images(path)
    (tmp_path / "secret.ts").write_bytes(b"x" * 1000)
    for content in (b"", b"no video", b"#EXTM3U\n#EXTINF:1,\nfile:secret.ts\n#EXT-X-ENDLIST\n"):
        path.write_bytes(content)
        with pytest.raises(MediaError, match=f"{name} cannot be read"):
            read_images(path)


def test_without_the_extra_the_run_stops_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", absent)
    for name in ("a.nii.gz", "a.mhd", "a.mp4"):
        (tmp_path / name).write_bytes(b"anything")
        with pytest.raises(ReaderMissing, match=r"needs the library .*: pip install '.*\[data\]'"):
            read_images(tmp_path / name)
