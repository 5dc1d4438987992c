"""``make_phantom``: the planned cases drawn, asked about and put into the row schema."""

import io
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.random import Generator
from PIL import Image

from qoq_lib.data.example import FEATURES
from qoq_lib.data.phantom.catalog import options, patterns
from qoq_lib.data.phantom.drawing import boxes
from qoq_lib.data.phantom.ecg import LEADS, RATE_HZ, make_ecg
from qoq_lib.data.phantom.images import draw
from qoq_lib.data.phantom.plan import Case, PhantomError, named_rng, plan
from qoq_lib.data.phantom.reports import report_of
from qoq_lib.data.prompts import Task, shuffled, task_question

LICENSE = "Apache-2.0"


def make_phantom(rows: int, seed: int = 0, difficulty: float = 0.0) -> Dataset:
    """Draw a phantom data set of ``rows`` assembled rows (``FEATURES`` of ``data.example``).

    Images are 112 x 112 px PNGs, ECGs 12 leads x 5000 samples at 500 Hz in mV. ``difficulty`` in
    [0, 1] lowers the lesions' contrast, shrinks and distorts them and adds noise. The same
    arguments give the same bytes, and a row depends on ``seed``, its id and its case alone. Splits:
    see ``data.phantom.plan``. Raises ``PhantomError`` for fewer rows than hold all nine domains, a
    difficulty outside [0, 1] or a negative seed.
    """
    made = [phantom_row(case, seed, difficulty) for case in phantom_cases(rows, seed, difficulty)]
    columns = {name: [row[name] for row in made] for name in FEATURES}
    return Dataset.from_dict(columns, features=FEATURES)


def phantom_cases(rows: int, seed: int, difficulty: float) -> list[Case]:
    """The cases of ``make_phantom``, of which ``phantom_row`` makes the rows one by one."""
    if not 0.0 <= difficulty <= 1.0:
        raise PhantomError(f"The difficulty must lie between 0 and 1, got {difficulty}.")
    if seed < 0:
        raise PhantomError(f"The seed must be 0 or more, got {seed}.")
    return plan(rows, seed)


def dataset_of(domain: str) -> str:
    """The phantom's data set of a domain."""
    return f"phantom_{domain}"


def phantom_row(case: Case, seed: int, difficulty: float) -> dict[str, Any]:
    """The row of one case of ``plan``, images as ``{"bytes", "path"}``."""
    return {
        "id": case.id,
        "domain": case.domain,
        "dataset": dataset_of(case.domain),
        "patient_id": case.patient.id,
        "split": case.split,
        **_words(case, seed),
        **_media(case, named_rng(seed, case.id), difficulty),
        "report": report_of(case, seed),
        "sex": case.patient.sex,
        "age_years": float(case.patient.age),
        "license": LICENSE,
    }


def _words(case: Case, seed: int) -> dict[str, Any]:
    """Question, options in the row's own order, and the answer: a pattern or a diagnosis."""
    perceive = case.split == "align"
    choices = shuffled((patterns if perceive else options)(case.domain), seed, case.id)
    task: Task = "perception" if perceive else "diagnosis"
    answer = case.finding.pattern if perceive else case.finding.diagnosis
    question = task_question(task, case.domain, choices)
    return {"question": question, "options": choices, "answers": [answer]}


def _media(case: Case, rng: Generator, difficulty: float) -> dict[str, Any]:
    """Image with mask and boxes, or ECG; what a row lacks is ``None`` (no image is ``[]``)."""
    media: dict[str, Any] = dict.fromkeys(("ecg", "ecg_leads", "ecg_rate_hz", "mask", "boxes"))
    media["images"] = []
    if case.domain == "ecg":
        ecg = make_ecg(case.finding.pattern, rng, difficulty)
        return media | {"ecg": list(ecg), "ecg_leads": list(LEADS), "ecg_rate_hz": RATE_HZ}
    drawing = draw(case.domain, case.finding.pattern, rng, difficulty)
    media["images"] = [_png(drawing.image)]
    if drawing.mask is None:
        return media
    mask = drawing.mask.astype(np.uint8) * 255
    return media | {"mask": _png(mask), "boxes": boxes(drawing.mask)}


def _png(pixels: np.ndarray) -> dict[str, Any]:
    """An 8-bit array as the bytes of a PNG, in the shape ``datasets.Image`` takes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}
