"""ECGs of any origin as the encoder takes them: leads by name, rate, length, files, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_lib.model.ecg_signal import (
    MODEL_LEADS,
    STANDARD_LEADS,
    EcgInputError,
    prepare_ecg,
    read_ecg_file,
)

RNG = np.random.default_rng(0)
SIGNAL = RNG.normal(size=(12, 5000))
PICKED = [STANDARD_LEADS.index(name) for name in MODEL_LEADS]


def waves(rate_hz: float, seconds: float = 10.0, leads: int = 12) -> np.ndarray:
    """Slow sines, another frequency and offset in each lead, in millivolts."""
    time = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.stack([lead + np.sin(2 * np.pi * (1 + lead / 10) * time) for lead in range(leads)])


def assert_waves(values: np.ndarray, seconds: float) -> None:
    """The slow sines, z-scored, as far as they are known, and zeros behind."""
    known = min(2500, int(seconds * 250))
    assert values.shape == (8, 2500) and values.dtype == np.float32
    assert not values[:, known + 1 :].any()
    ideal = waves(250, known / 250)[PICKED]
    ideal = (ideal - ideal.mean(1, keepdims=True)) / ideal.std(1, keepdims=True)
    inner = slice(50, known - 50)  # a resampling filter is blind near the ends
    assert np.abs(values[:, inner] - ideal[:, inner]).max() < 0.05
    assert np.abs(values).max() < 2


@pytest.mark.parametrize("rate_hz", [100, 128.5, 250, 257, 360.0, 500, 1000])
@pytest.mark.parametrize("seconds", [4, 10, 13, 40])
def test_other_rates_and_lengths_show_the_same_waves(rate_hz: float, seconds: float) -> None:
    assert_waves(prepare_ecg(waves(rate_hz, seconds), rate_hz=rate_hz), seconds)


@settings(max_examples=30)
@given(st.integers(400, 10_000), st.integers(30, 200))
def test_any_rate_and_length(tenths_hz: int, tenths_s: int) -> None:
    rate_hz = max(tenths_hz / 10, 60.0)
    seconds = round(rate_hz * tenths_s / 10) / rate_hz  # a whole number of samples
    assert_waves(prepare_ecg(waves(rate_hz, seconds), rate_hz=rate_hz), seconds)


def test_leads_are_found_by_name() -> None:
    order = RNG.permutation(12)
    names = [f" {STANDARD_LEADS[row].lower()}" for row in order]
    assert np.array_equal(prepare_ecg(SIGNAL[order], names), prepare_ecg(SIGNAL))


def test_eight_and_twelve_leads_give_the_same() -> None:
    assert np.array_equal(prepare_ecg(SIGNAL[PICKED]), prepare_ecg(SIGNAL))


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1000.0])
def test_the_unit_does_not_matter(scale: float) -> None:
    assert np.allclose(prepare_ecg(SIGNAL * scale), prepare_ecg(SIGNAL), atol=1e-5)


def test_an_offset_leaves_no_trace_at_the_ends() -> None:
    shifted = prepare_ecg(SIGNAL + 20.0)
    assert np.abs(shifted - prepare_ecg(SIGNAL)).max() < 1e-4


def test_what_follows_ten_seconds_changes_nothing() -> None:
    longer = np.concatenate([waves(500, 12), 100 * RNG.normal(size=(12, 9000))], axis=1)
    assert np.allclose(prepare_ecg(longer[:, :6500]), prepare_ecg(longer), atol=1e-5)


def broken(value: float) -> np.ndarray:
    signal = SIGNAL.copy()
    signal[3, 7] = value
    return signal


@pytest.mark.parametrize(
    ("signal", "leads", "message"),
    [
        (SIGNAL.T, None, r"leads x samples, got shape \(5000, 12\): transpose"),
        (SIGNAL[0], None, r"leads x samples, got shape \(5000,\)"),
        (SIGNAL[None], None, r"leads x samples, got shape \(1, 12, 5000\)"),
        (SIGNAL[:, :0], None, r"The ECG is empty, of shape \(12, 0\)"),
        ([], None, "The ECG is empty"),
        ([[1.0, 2.0], [3.0]], None, "must be an array of leads x samples"),
        (["heart"], None, "must be an array of leads x samples"),
        (SIGNAL[:3], None, "3 rows named .* needed are the leads I, II, V1"),
        (SIGNAL[:11], STANDARD_LEADS[:11], "11 rows named .* one name per row"),
        (SIGNAL, STANDARD_LEADS[:11], "one name per row"),
        (SIGNAL, [*STANDARD_LEADS[:2], "V1", *STANDARD_LEADS[3:]], "one name per row"),
        (broken(np.nan), None, "NaN or infinite"),
        (broken(np.inf), None, "NaN or infinite"),
    ],
)
def test_an_unreadable_ecg_is_refused(signal: Any, leads: Any, message: str) -> None:
    with pytest.raises(EcgInputError, match=message):
        prepare_ecg(signal, leads)


@pytest.mark.parametrize("rate_hz", [0, -500, 0.1, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(rate_hz: float) -> None:
    with pytest.raises(EcgInputError, match="sampling rate"):
        prepare_ecg(SIGNAL, rate_hz=rate_hz)


@pytest.mark.parametrize("rate_hz", [100, 250, 257, 500, 1000])
@pytest.mark.parametrize("level", [0.0, 1.0, -3.3, 32767.0])
def test_constant_leads_are_named_and_refused(rate_hz: float, level: float) -> None:
    signal = waves(rate_hz)
    signal[[0, 7]] = level
    with pytest.raises(EcgInputError, match="The ECG is constant in I, V2, as of a loose"):
        prepare_ecg(signal, rate_hz=rate_hz)


def test_a_lead_that_the_model_does_not_take_may_be_constant() -> None:
    signal = waves(500)
    signal[STANDARD_LEADS.index("aVR")] = 0
    assert np.array_equal(prepare_ecg(signal), prepare_ecg(waves(500)))


def test_a_wfdb_record_brings_its_leads_and_rate(tmp_path: Path) -> None:
    order = RNG.permutation(12)
    names = [STANDARD_LEADS[row] for row in order]
    wfdb.wrsamp(
        "case",
        fs=360,
        units=["mV"] * 12,
        sig_name=names,
        p_signal=waves(360)[order].T,
        fmt=["16"] * 12,
        write_dir=str(tmp_path),
    )
    for name in ("case", "case.hea", "case.dat"):
        fields = read_ecg_file(tmp_path / name)
        assert fields["leads"] == names and fields["rate_hz"] == 360
        assert_waves(prepare_ecg(fields["ecg"], fields["leads"], fields["rate_hz"]), 10)


def test_a_numpy_file_is_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "case.npy", SIGNAL)
    assert np.array_equal(read_ecg_file(str(tmp_path / "case.npy"))["ecg"], SIGNAL)


def test_no_file_runs_code(tmp_path: Path) -> None:
    np.save(tmp_path / "case.npy", np.array([{"any": "object"}], dtype=object))
    with pytest.raises(EcgInputError, match="case.npy cannot be read .*allow_pickle"):
        read_ecg_file(tmp_path / "case.npy")


@pytest.mark.parametrize("name", ["none.npy", "none", "none.hea", "torn.npy", "torn.hea"])
def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    for torn in ("torn.npy", "torn.hea"):
        (tmp_path / torn).write_bytes(b"\x93NUMPY")
    with pytest.raises(EcgInputError, match=f"{name} cannot be read"):
        read_ecg_file(tmp_path / name)
