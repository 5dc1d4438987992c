"""The phantom: same bytes from the same seed, exact masks and boxes, the promised shape."""

import io
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from scipy import ndimage, signal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from qoq_lib.data.example import FEATURES, SPLITS, check_rows, ecg_array
from qoq_lib.data.phantom import FINDINGS, PhantomError, draw, make_phantom, options, patterns
from qoq_lib.data.phantom.ecg import LEADS, RATE_HZ, make_ecg
from qoq_lib.data.phantom.images import FAMILIES
from qoq_lib.data.phantom.plan import MIN_ROWS, TRAIN_SHARES, apportion, named_rng, plan
from qoq_lib.data.phantom.reports import report_of
from qoq_lib.domains import DOMAIN_NAMES

ROWS = 240


@pytest.fixture(scope="module")
def phantom() -> Dataset:
    return make_phantom(ROWS, seed=3)


@pytest.fixture(scope="module")
def rows(phantom: Dataset) -> list[dict]:
    """Rows with pictures decoded."""
    return list(phantom)


def test_schema_and_rows_are_valid(phantom: Dataset, rows: list[dict]) -> None:
    assert phantom.features == FEATURES
    assert len(rows) == ROWS
    check_rows(rows)


def test_same_seed_same_bytes_and_another_seed_differs(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_phantom(MIN_ROWS, seed=seed).to_parquet(tmp_path / f"{name}.parquet")
    first, again, other = ((tmp_path / f"{n}.parquet").read_bytes() for n in "abc")
    assert first == again
    assert first != other


def test_a_row_can_be_drawn_alone(phantom: Dataset) -> None:
    raw = phantom.data.table.select(["id", "images"]).to_pylist()
    pictures = {row["id"]: row["images"] for row in raw}
    case = next(case for case in plan(ROWS, 3) if case.domain == "ct")
    alone = draw("ct", case.finding.pattern, named_rng(3, case.id), 0.0)
    stored = Image.open(io.BytesIO(pictures[case.id][0]["bytes"]))
    assert np.array_equal(np.asarray(stored), alone.image)


def test_every_domain_is_in_every_split_and_train_has_every_class() -> None:
    for size in (MIN_ROWS, 200, 1000):
        cases = plan(size, 0)
        assert len(cases) == size
        assert {(c.split, c.domain) for c in cases} == {
            (s, d) for s in SPLITS for d in DOMAIN_NAMES
        }
    trained = {(c.domain, c.finding) for c in plan(200, 0) if c.split == "train"}
    assert trained == {(domain, finding) for domain in FINDINGS for finding in FINDINGS[domain]}


def test_train_is_long_tailed_and_evaluation_is_balanced() -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    classes: dict[str, list[str]] = defaultdict(list)
    for case in plan(2000, 0):
        counts[case.split][case.domain] += 1
        if case.split == "train":
            classes[case.domain].append(case.finding.diagnosis)
    ranked = sorted(DOMAIN_NAMES, key=lambda name: -TRAIN_SHARES[name])
    train = [counts["train"][name] for name in ranked]
    assert train == sorted(train, reverse=True) and train[0] > 5 * train[-1]
    for split in ("align", "validation", "test"):
        assert max(counts[split].values()) - min(counts[split].values()) <= 1
    for domain, seen in classes.items():
        tail = [Counter(seen)[diagnosis] for diagnosis in options(domain)]
        assert tail == sorted(tail, reverse=True)


def test_apportion_sums_and_keeps_the_least() -> None:
    assert apportion(10, [0.5, 0.3, 0.2]) == [5, 3, 2]
    assert apportion(10, [0.98, 0.01, 0.01], least=2) == [6, 2, 2]
    assert sum(apportion(2, [1.0] * 5, least=3)) == 2


def test_patients_keep_to_one_split_and_have_one_to_three_rows(rows: list[dict]) -> None:
    splits, people = defaultdict(set), defaultdict(set)
    visits = Counter(row["patient_id"] for row in rows)
    for row in rows:
        splits[row["patient_id"]].add(row["split"])
        people[row["patient_id"]].add((row["sex"], row["age_years"]))
        assert row["sex"] in ("F", "M") and 18 <= row["age_years"] <= 92
    assert all(len(found) == 1 for found in (*splits.values(), *people.values()))
    assert set(visits.values()) == {1, 2, 3}


def test_masks_and_boxes_are_exact(rows: list[dict]) -> None:
    lesions = 0
    for row in rows:
        if row["mask"] is None:
            assert row["boxes"] is None
            continue
        mask = np.asarray(row["mask"])
        assert row["mask"].mode == "L" and row["mask"].size == row["images"][0].size == (112, 112)
        assert set(np.unique(mask)) == {0, 255}
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        expected = []
        for number in range(1, count + 1):
            ys, xs = np.nonzero(labels == number)
            expected.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert row["boxes"] == expected
        lesions += 1
    assert lesions > ROWS / 2


def test_only_the_class_without_lesion_lacks_a_mask(rows: list[dict]) -> None:
    for row in rows:
        if row["domain"] == "ecg":
            assert row["images"] == [] and row["mask"] is None
            continue
        kinds = FINDINGS[row["domain"]]
        healthy = {(k.diagnosis, k.pattern) for k in kinds[:1] if row["domain"] != "dermoscopy"}
        answers = {name for pair in healthy for name in pair}
        assert (row["mask"] is None) == (row["answers"][0] in answers)


def test_questions_ask_for_patterns_in_align_and_for_diagnoses_elsewhere(rows: list[dict]) -> None:
    for row in rows:
        words = patterns if row["split"] == "align" else options
        assert sorted(row["options"]) == sorted(words(row["domain"]))
        assert all(option in row["question"] for option in row["options"])
    for domain in DOMAIN_NAMES:
        assert not set(patterns(domain)) & set(options(domain))
        assert 2 <= len(options(domain)) <= 5
    first = Counter(row["options"][0] for row in rows if row["domain"] == "chest_xray")
    assert len(first) > 4


@pytest.mark.parametrize(
    ("domain", "usual", "told"),
    [
        ("chest_xray", "pneumonia", "pulmonary edema"),
        ("ecg", "myocardial infarction", "pericarditis"),
    ],
)
def test_some_rows_need_report_and_picture_together(domain: str, usual: str, told: str) -> None:
    kinds = {finding.diagnosis: finding for finding in FINDINGS[domain]}
    assert kinds[usual].pattern == kinds[told].pattern
    cases = [c for c in plan(4000, 0) if c.domain == domain and c.split != "align"]
    told_by: dict[str, Counter[str | None]] = defaultdict(Counter)
    for case in cases:
        told_by[case.finding.diagnosis][report_of(case, 0)] += 1
    assert set(told_by[told]) == set(kinds[told].history)
    assert set(told_by[usual]) > set(kinds[usual].history)
    assert not set(told_by[usual]) & set(kinds[told].history)
    elsewhere = {line for name in kinds if name not in (usual, told) for line in told_by[name]}
    assert elsewhere > {*kinds[usual].history, *kinds[told].history}, (
        "the report alone must not give the answer away"
    )
    needy = sum(told_by[name][line] for name in (usual, told) for line in kinds[name].history)
    assert 0.08 < needy / len(cases) < 0.3


def test_ecgs_have_twelve_leads_that_agree(rows: list[dict]) -> None:
    for row in (row for row in rows if row["domain"] == "ecg"):
        ecg = ecg_array(row)
        assert ecg is not None and ecg.shape == (12, 5000)
        assert row["ecg_leads"] == list(LEADS) and row["ecg_rate_hz"] == RATE_HZ
        one, two, three, avr, avl, avf = ecg[:6]
        np.testing.assert_allclose(three, two - one, atol=1e-5)
        np.testing.assert_allclose(avr, -(one + two) / 2, atol=1e-5)
        np.testing.assert_allclose(avl, one - two / 2, atol=1e-5)
        np.testing.assert_allclose(avf, two - one / 2, atol=1e-5)
        assert 0.5 < np.ptp(ecg) < 6 and np.abs(ecg).max() < 4


def _intervals(ecg: np.ndarray) -> np.ndarray:
    """Seconds between R peaks in lead II."""
    lead = ecg[LEADS.index("II")]
    peaks, _ = signal.find_peaks(lead, height=0.6 * lead.max(), distance=int(0.2 * RATE_HZ))
    return np.diff(peaks) / RATE_HZ


def _ecgs(pattern: str, difficulty: float = 0.0) -> list[np.ndarray]:
    return [make_ecg(pattern, np.random.default_rng(i), difficulty) for i in range(8)]


def test_sinus_rhythm_is_regular_and_fibrillation_is_not() -> None:
    steady = [_intervals(ecg) for ecg in _ecgs("steady narrow beats", 0.3)]
    irregular = [_intervals(ecg) for ecg in _ecgs("irregular beats", 0.3)]
    assert all(55 < 60 / rr.mean() < 100 for rr in steady)
    assert max(rr.std() / rr.mean() for rr in steady) < 0.08
    assert min(rr.std() / rr.mean() for rr in irregular) > 0.1


def test_st_elevation_lifts_some_leads_and_wide_beats_are_wider() -> None:
    def lift(ecg: np.ndarray) -> float:
        """The highest lead's median, where the ST segment shows and the narrow QRS does not."""
        lead = ecg[LEADS.index("II")]
        peaks, _ = signal.find_peaks(lead, height=0.6 * lead.max(), distance=200)
        return max(float(np.median(ecg[k][peaks[:-1] + 50])) for k in range(12))

    def width(ecg: np.ndarray) -> float:
        """Share of time that lead V6 spends above half its peak."""
        return float(np.mean(ecg[11] > 0.5 * ecg[11].max()))

    plain = _ecgs("steady narrow beats")
    assert min(map(lift, _ecgs("raised ST segment"))) > 1.5 * max(map(lift, plain))
    assert min(map(width, _ecgs("wide beats"))) > 1.5 * max(map(width, plain))


def _contrast(domain: str, pattern: str, difficulty: float) -> float:
    """Mean difference between a lesion and the ring of 4 px around it, in grey levels."""
    found = []
    for i in range(6):
        drawing = draw(domain, pattern, np.random.default_rng(i), difficulty)
        assert drawing.mask is not None
        image = drawing.image.astype(float).reshape(112, 112, -1)
        ring = ndimage.binary_dilation(drawing.mask, iterations=4) & ~drawing.mask
        found.append(np.abs(image[drawing.mask].mean(axis=0) - image[ring].mean(axis=0)).mean())
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("domain", "pattern"),
    [
        ("chest_xray", "round spot"),
        ("mammography", "spiky mass"),
        ("dermoscopy", "even brown patch"),
        ("ct", "large bright disc"),
        ("fundus", "dark red blots"),
        ("ultrasound", "black oval"),
        ("mri", "bright ball at the edge"),
        ("pathology", "swarm of small dots"),
    ],
)
def test_difficulty_lowers_contrast(domain: str, pattern: str) -> None:
    easy, middle, hard = (_contrast(domain, pattern, level) for level in (0.0, 0.5, 1.0))
    assert easy > middle > hard > 0


def _features(image: np.ndarray) -> np.ndarray:
    """Quantiles of brightness and of its local change at 56 x 56 px, per channel."""
    small = image.reshape(56, 2, 56, 2, -1).mean(axis=(1, 3))
    change = np.hypot(np.diff(small, axis=0)[:, 1:], np.diff(small, axis=1)[1:])
    centre = small[10:46, 10:46]
    steps = np.linspace(0, 1, 21)
    return np.concatenate(
        [np.quantile(a, steps, axis=(0, 1)).ravel() for a in (small, change, centre)]
    )


@pytest.mark.parametrize("domain", list(FAMILIES))
def test_patterns_can_be_told_apart_at_56_pixels(domain: str) -> None:
    words, each = patterns(domain), 20
    x = np.stack(
        [
            _features(draw(domain, word, np.random.default_rng([j, i]), 0.0).image)
            for i in range(each)
            for j, word in enumerate(words)
        ]
    )
    y, half = np.tile(np.arange(len(words)), each), each // 2 * len(words)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3)).fit(x[:half], y[:half])
    assert model.score(x[half:], y[half:]) > 0.7, "chance is 0.25"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": 50}, "at least 180 rows"),
        ({"rows": 100, "difficulty": 1.5}, "between 0 and 1, got 1.5"),
        ({"rows": 100, "difficulty": float("nan")}, "between 0 and 1, got nan"),
        ({"rows": 100, "seed": -1}, "seed must be 0 or more"),
    ],
)
def test_impossible_phantoms_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(PhantomError, match=words):
        make_phantom(**arguments)
