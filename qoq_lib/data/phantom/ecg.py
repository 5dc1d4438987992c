"""Synthetic 12-lead ECGs: 10 s at 500 Hz, float32 millivolts, 12 leads x 5000 samples.

Source: P. E. McSharry, G. D. Clifford, L. Tarassenko, L. A. Smith, "A dynamical model for
generating synthetic electrocardiogram signals", IEEE Trans. Biomed. Eng. 50(3):289-294, 2003. There
a point runs round a circle once a beat, and each wave pulls it up or down near its angle:

    dz/dt = - sum_i a_i d_i exp(-d_i^2 / (2 b_i^2)) - (z - z0),     d_i = (angle - angle_i) mod 2 pi

Within a beat the angular speed w is constant here, so without the weak pull to the baseline z0 the
equation integrates in closed form to z = sum_i (a_i b_i^2 / w) exp(-d_i^2 / (2 b_i^2)). That sum is
evaluated along the angle, with the height a_i b_i^2 / w given in millivolts; the breathing baseline
z0 is added. Angles and widths stretch with the square root of the heart rate, and the intervals
between beats follow the paper's two-peaked spectrum (0.1 Hz and 0.25 Hz). The heights per lead and
the classes other than sinus rhythm are this package's own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from qoq_lib.data.phantom.drawing import Array, Dial

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RATE_HZ = 500.0
SAMPLES = 5000
_TIME = np.arange(SAMPLES) / RATE_HZ

# Columns: leads I, II, V1 to V6. The other four limb leads follow from I and II.
Heights = tuple[float, ...]
P: Heights = (0.08, 0.13, 0.06, 0.08, 0.08, 0.08, 0.08, 0.08)
T: Heights = (0.20, 0.28, -0.05, 0.35, 0.40, 0.38, 0.30, 0.22)
ST_TERRITORIES: tuple[Heights, ...] = (
    (0.1, -0.3, 0.7, 1.0, 1.0, 0.8, 0.3, 0.1),  # anterior
    (-0.3, 1.0, -0.3, -0.5, -0.4, -0.2, 0.1, 0.2),  # inferior, with reciprocal depression
    (0.9, 0.2, -0.3, -0.3, 0.0, 0.5, 1.0, 1.0),  # lateral
)


@dataclass(frozen=True)
class Wave:
    """One Gaussian of the beat: angle and width in radians at 60 beats/min, mV in eight leads."""

    angle: float
    width: float
    heights: Heights


@dataclass(frozen=True)
class Beat:
    """The waves of one class and how irregular its beats are (coefficient of variation)."""

    waves: tuple[Wave, ...]
    irregularity: float = 0.03
    fibrillation: float = 0.0
    rate_range: tuple[float, float] = (58.0, 95.0)


_P = Wave(-np.pi / 3, 0.22, P)
_T = Wave(np.pi / 2, 0.4, T)
_NARROW = (
    Wave(-np.pi / 12, 0.09, (-0.05, -0.08, 0.0, 0.0, -0.03, -0.06, -0.09, -0.09)),
    Wave(0.0, 0.1, (0.65, 1.05, 0.25, 0.45, 0.8, 1.3, 1.2, 0.95)),
    Wave(np.pi / 12, 0.09, (-0.1, -0.15, -0.85, -1.15, -0.8, -0.45, -0.2, -0.08)),
)
_WIDE = (
    Wave(-0.2, 0.2, (0.6, 0.4, -0.45, -0.75, -0.65, -0.2, 0.6, 0.75)),
    Wave(0.28, 0.24, (0.75, 0.45, -0.85, -1.3, -1.1, -0.3, 0.8, 0.95)),
    Wave(1.7, 0.4, (-0.22, -0.1, 0.3, 0.5, 0.45, 0.1, -0.25, -0.3)),
)


def make_ecg(pattern: str, rng: Generator, difficulty: float) -> Array:
    """An ECG of one of the catalogue's four ``ecg`` patterns, float32 mV, 12 leads x 5000 samples.

    Difficulty adds noise and brings the irregularity, the ST elevation and the width of the beats
    closer to normal. ``LEADS`` names the rows.
    """
    dial = Dial(difficulty)
    beat = _beat(pattern, rng, dial)
    angle, rate = _phase(rng, beat)
    leads = _waves(rng, beat, angle, rate) * rng.uniform(0.8, 1.2)
    leads = leads + beat.fibrillation * _fibrillation(rng)
    return _twelve(leads + _disturbance(rng, dial))


def _beat(pattern: str, rng: Generator, dial: Dial) -> Beat:
    """The beat of a pattern."""
    if pattern == "steady narrow beats":
        return Beat((_P, *_NARROW, _T))
    if pattern == "irregular beats":
        cv = rng.uniform(0.2, 0.28) * (0.5 + 0.5 * dial.contrast)
        return Beat((*_NARROW, _T), cv, rng.uniform(0.06, 0.12) * dial.contrast, (75.0, 125.0))
    if pattern == "raised ST segment":
        territory = np.asarray(ST_TERRITORIES[rng.integers(len(ST_TERRITORIES))])
        lift = Wave(0.75, 0.34, tuple(territory * rng.uniform(0.4, 0.6) * dial.contrast))
        return Beat((_P, *_NARROW, lift, _T))
    if pattern == "wide beats":
        narrowing = 0.6 + 0.4 * dial.contrast
        wide = tuple(Wave(w.angle * narrowing, w.width * narrowing, w.heights) for w in _WIDE[:2])
        return Beat((_P, *wide, _WIDE[2]))
    raise ValueError(f"Unknown ECG pattern {pattern!r}: see the patterns of FINDINGS['ecg'].")


def _phase(rng: Generator, beat: Beat) -> tuple[Array, Array]:
    """Angle in radians (0 at each R peak, within -pi to pi) and beats/min, at every sample."""
    mean_rr = 60.0 / rng.uniform(*beat.rate_range)
    count = int(14.0 / mean_rr) + 6
    if beat.irregularity > 0.1:
        swing = np.clip(rng.gamma(4.0, 0.5, count) - 2.0, -1.7, 2.5)
    else:
        swing = _heart_rate_variability(rng, count, mean_rr)
    intervals = mean_rr * (1 + beat.irregularity * swing)
    peaks = np.cumsum(intervals) - intervals[0] * rng.uniform(1, 2) - mean_rr
    turns = np.interp(_TIME, peaks, np.arange(count))
    # The interval from one peak to the next sets the stretch of the waves that lie in it.
    rate = 60.0 / intervals[np.floor(turns).astype(int) + 1]
    return 2 * np.pi * (turns - np.round(turns)), rate


def _heart_rate_variability(rng: Generator, count: int, mean_rr: float) -> Array:
    """Intervals of mean 0 and standard deviation 1 with power round 0.1 Hz and 0.25 Hz."""
    size = 512
    hertz = np.fft.rfftfreq(size, mean_rr)
    power = np.exp(-(((hertz - 0.1) / 0.014) ** 2) / 2) + 2 * np.exp(
        -(((hertz - 0.25) / 0.014) ** 2) / 2
    )
    phases = np.exp(2j * np.pi * rng.uniform(size=hertz.size))
    series = np.fft.irfft(np.sqrt(power) * phases, size)
    return ((series - series.mean()) / series.std())[:count]


def _waves(rng: Generator, beat: Beat, angle: Array, rate: Array) -> Array:
    """The Gaussian sum along the angle, mV, 8 leads x samples."""
    stretch = np.sqrt(rate / 60.0)
    shapes = np.stack([_bump(angle - w.angle * stretch, w.width * stretch) for w in beat.waves])
    heights = np.asarray([w.heights for w in beat.waves])
    heights = heights * rng.normal(1.0, 0.1, heights.shape)
    return heights.T @ shapes


def _bump(offset: Array, width: Array) -> Array:
    """A Gaussian of the angle that runs on round the circle, height 1."""
    around = (offset + np.pi) % (2 * np.pi) - np.pi
    return np.exp(-(around**2) / (2 * width**2))


def _fibrillation(rng: Generator) -> Array:
    """Fibrillatory waves of up to 1 mV at 4 to 8 Hz, 8 leads x samples."""
    drift = ndimage.gaussian_filter1d(rng.standard_normal(SAMPLES), 200, mode="wrap")
    hertz = rng.uniform(5.0, 7.0) + 0.6 * drift / drift.std()
    wave = np.sin(2 * np.pi * np.cumsum(hertz) / RATE_HZ + rng.uniform(0, 6))
    weights = np.asarray((0.4, 0.8, 1.0, 0.7, 0.4, 0.3, 0.3, 0.3))
    return weights[:, None] * wave


def _disturbance(rng: Generator, dial: Dial) -> Array:
    """Breathing baseline and muscle noise, mV, 8 leads x samples."""
    breath = np.sin(2 * np.pi * rng.uniform(0.18, 0.3) * _TIME + rng.uniform(0, 6))
    baseline = rng.normal(0, 0.04, (8, 1)) * breath
    noise = rng.standard_normal((8, SAMPLES), dtype=np.float32)
    noise[:, 1:] = 0.6 * (noise[:, 1:] + noise[:, :-1])
    return baseline + noise * dial.noise


def _twelve(leads: Array) -> Array:
    """Add III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2."""
    one, two = leads[0], leads[1]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.concatenate([np.stack(limb), leads[2:]]).astype(np.float32)
