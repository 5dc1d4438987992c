"""One record or one case of the phantom in, its assembled row out."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from qoq_lib.data.example import FEATURES
from qoq_lib.data.listing import Listed
from qoq_lib.data.phantom.plan import Case
from qoq_lib.data.phantom.rows import phantom_row
from qoq_lib.data.prompts import shuffled, task_question, with_patient
from qoq_lib.data.readers import (
    MediaError,
    StoredImage,
    View,
    boxes_of,
    look_of,
    marked_frames,
    read_ecg,
    read_mask,
    stored_images,
)
from qoq_lib.data.shards import Made, Refusal
from qoq_lib.data.sources.source import Record


def made_row(
    one: Listed, split: str, *, seed: int, embed: bool, demographics: bool = False
) -> Made | Refusal:
    """The row of a record, or why one of its files cannot be used.

    ``demographics`` says whether its question tells the patient's sex and age.
    """
    try:
        files = _images(one)
        row = _row(one, split, seed) | _ecg_fields(one.record) | _image_fields(one, files, embed)
    except MediaError as error:
        return Refusal(one.source.name, one.record.record_id, str(error))
    row = with_patient(row) if demographics else row
    return Made(row, look_of(files[0][0].image) if files else None)


def _row(one: Listed, split: str, seed: int) -> dict[str, Any]:
    """The assembled row of a record but for its media."""
    source, record = one.source, one.record
    options = shuffled(list(source.options), seed, one.row_id)
    return dict.fromkeys(FEATURES) | {
        "id": one.row_id,
        "domain": source.domain,
        "dataset": source.name,
        "patient_id": source.patient(record),
        "split": split,
        "question": task_question(source.task, source.domain, options),
        "options": options,
        "answers": list(record.answers),
        "report": record.report,
        "sex": record.sex,
        "age_years": record.age_years,
        "license": record.license or source.license,
    }


def _ecg_fields(record: Record) -> dict[str, Any]:
    if record.ecg is None:
        return {}
    ecg = read_ecg(record.ecg)
    return {"ecg": list(ecg.signal), "ecg_leads": ecg.leads, "ecg_rate_hz": ecg.rate_hz}


def _images(one: Listed) -> list[list[StoredImage]]:
    """The images of each file of a record; the masks may say which slices of a volume."""
    record = one.record
    frames = record.frames or marked_frames(record.masks, record.mask_values)
    view = View(one.source.window, frames, record.crop)
    return [stored_images(path, view) for path in record.images]


def _image_fields(
    one: Listed, files: Sequence[Sequence[StoredImage]], embed: bool
) -> dict[str, Any]:
    """Images, mask and boxes; masks are of the first file."""
    if not files:
        return {}
    record = one.record
    mask = read_mask(record.masks, files[0], record.mask_values, record.crop)
    return {
        "images": [image.field(embed) for images in files for image in images],
        "mask": StoredImage(mask).field(embed) if mask else None,
        "boxes": [list(box) for box in record.boxes] or (boxes_of(mask) if mask else None),
    }


def made_phantom(
    case: Case, split: str, *, seed: int, difficulty: float, demographics: bool = False
) -> Made:
    """The row of a case of the phantom; ``demographics`` as in ``made_row``."""
    row = phantom_row(case, seed, difficulty)
    row = with_patient(row) if demographics else row
    first = row["images"][:1]
    return Made(row, look_of(Image.open(io.BytesIO(first[0]["bytes"]))) if first else None)
