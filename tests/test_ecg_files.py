"""ECG records as they occur in the wild, and the sentence about each that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import wfdb
from PIL import Image

from qoq_lib.data.readers import MediaError, content_hash, read_ecg

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]


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


@pytest.mark.parametrize(("rate_hz", "samples"), [(257, 1000), (500, 700), (1000, 33_000)])
def test_other_rates_and_lengths_are_read_as_they_are(
    tmp_path: Path, rate_hz: int, samples: int
) -> None:
    signal = np.round(np.random.default_rng(1).normal(0, 0.5, (12, samples)), 3)
    record = write_mat(tmp_path, signal, "/mv")
    header = record.with_suffix(".hea")
    header.write_text(header.read_text().replace("r1 12 500", f"r1 12 {rate_hz}", 1))
    ecg = read_ecg(record)
    assert ecg.rate_hz == rate_hz
    np.testing.assert_allclose(ecg.signal, signal, atol=1e-6)


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


def test_hashes_tell_content_and_not_name(tmp_path: Path, millivolts: np.ndarray) -> None:
    for name in ("a.png", "b.png"):
        Image.new("L", (3, 2)).save(tmp_path / name)
    assert content_hash([tmp_path / "a.png"]) == content_hash([tmp_path / "b.png"])
    one = write_dat(tmp_path, millivolts, "one")
    two = write_dat(tmp_path, millivolts, "two")
    assert content_hash([], one) == content_hash([], two)
    with pytest.raises(MediaError, match=r"c\.png is listed but missing"):
        content_hash([tmp_path / "c.png"])
