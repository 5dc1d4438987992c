"""The CTs of the paper: LNDb, INSPECT, KiTS23, Hemorrhage and RSPECT.

INSPECT is read as released in June 2025, which names the patients and splits by them; the single
table of labels before it did neither. RSPECT is thinned, or it would be two thirds of everything.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.lndb import nodule_windows
from qoq_lib.data.sources.source import Record, Source, SourceError, inside
from qoq_lib.data.sources.tables import Join, Row

SLICES_PER_LABEL = 2
"""How many slices of each label a study of RSPECT is thinned to."""

_LUNG, _EMBOLISM, _ABDOMEN = (-600, 1500), (100, 700), (40, 400)  # level, width

_NONE, _ACUTE, _CHRONIC = (
    "no pulmonary embolism",
    "acute pulmonary embolism",
    "chronic pulmonary embolism",
)
_ACUTE_SUBSEGMENTAL = "acute subsegmental-only pulmonary embolism"
_SUBSEGMENTAL = "subsegmental-only pulmonary embolism"

_TRUTH = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}

_RSPECT_COLUMNS = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "pe_present_on_image",
    "chronic_pe",
    "acute_and_chronic_pe",
    "indeterminate",
)


def inspect_embolism(row: Row) -> str:
    """The embolism a study of INSPECT has; "" where a mark is neither true nor false."""
    columns = ("pe_positive_nlp", "pe_acute", "pe_subsegmentalonly")
    present, acute, subsegmental = (_TRUTH.get(row[column].lower()) for column in columns)
    if present is False:
        return _NONE
    if present is None or acute is None or subsegmental is None:
        return ""
    if acute:
        return _ACUTE_SUBSEGMENTAL if subsegmental else _ACUTE
    return _SUBSEGMENTAL if subsegmental else _CHRONIC


def hemorrhage_mask(row: Row) -> str:
    """The mask of the bleeding, which slices without one do not have."""
    if row["No_Hemorrhage"] == "1":
        return ""
    return "Patients_CT/{PatientNumber:0>3}/brain/{SliceNumber}_HGE_Seg.jpg".format_map(row)


def _rspect(source: Source, root: Path) -> Iterator[Record]:
    """Of every study and label, the two slices whose ``SOPInstanceUID`` has the lowest SHA-256.

    The rule depends on nothing but the slice: not on the order of the table, a seed or what else is
    there. The patient is not published; a study stands for one.
    """
    kept: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for row in _rspect_slices(inside(root, "train.csv", source.name)):
        slice_id = row["SOPInstanceUID"]
        same = kept[row["StudyInstanceUID"], _rspect_embolism(row)]
        name = f"{row['StudyInstanceUID']}/{row['SeriesInstanceUID']}/{slice_id}"
        same.append((hashlib.sha256(slice_id.encode()).hexdigest(), name))
        if len(same) > SLICES_PER_LABEL:
            same.remove(max(same))
    for (study, answer), slices in sorted(kept.items()):
        for _, name in sorted(slices):
            yield Record(
                record_id=name,
                patient_id=study,
                answers=(answer,) if answer else (),
                images=(inside(root, f"train/{name}.dcm", source.name),),
            )


def _rspect_embolism(row: Row) -> str:
    """What the slice shows; "" where its study is indeterminate, or has both kinds of embolism."""
    if row["indeterminate"] == "1":
        return ""
    if row["pe_present_on_image"] == "0":
        return _NONE
    if row["acute_and_chronic_pe"] == "1":
        return ""
    return _CHRONIC if row["chronic_pe"] == "1" else _ACUTE


def _rspect_slices(table: Path) -> Iterator[Row]:
    """The lines of a table that is too large to be held: nearly two million."""
    try:
        parts = pd.read_csv(table, dtype=str, usecols=_RSPECT_COLUMNS, chunksize=100_000)
        for part in parts:
            yield from part[list(_RSPECT_COLUMNS)].to_dict("records")
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise SourceError(
            f"The table {table} cannot be read ({str(error).splitlines()[0]}): fetch it again."
        ) from error


_LNDB = Source(
    name="lndb",
    domain="ct",
    folder="ct/lndb",
    license="CC-BY-4.0",
    options=("no nodule", "nodule"),
    window=_LUNG,
    readers=(nodule_windows,),
)

_INSPECT = Source(
    name="inspect",
    domain="ct",
    folder="ct/inspect",
    license="Stanford University Dataset Research Use Agreement",
    options=(_NONE, _ACUTE_SUBSEGMENTAL, _ACUTE, _SUBSEGMENTAL, _CHRONIC),
    window=(80, 700),
    readers=(
        FolderTable(
            table="study_mapping_20250611.tsv",
            file="CTPA/{image_id}.nii.gz",
            joins=(
                Join("labels_20250611.tsv", "impression_id", "{impression_id}"),
                Join("splits_20250611.tsv", "impression_id", "{impression_id}"),
            ),
            label=inspect_embolism,
            labels={
                "": None,
                **{
                    one: one
                    for one in (_NONE, _ACUTE_SUBSEGMENTAL, _ACUTE, _SUBSEGMENTAL, _CHRONIC)
                },
            },
            patient="{person_id}",
            split="{split}",
        ),
    ),
)

_KITS = Source(
    name="kits23",
    domain="ct",
    folder="ct/kits23",
    license="CC-BY-NC-SA-4.0",
    options=("benign", "malignant"),
    window=_ABDOMEN,
    readers=(
        FolderTable(
            table="dataset/kits23.json",
            file="dataset/{case_id}/imaging.nii.gz",
            label="{malignant}",
            labels={"false": "benign", "true": "malignant", "": None},
            mask="dataset/{case_id}/segmentation.nii.gz",
            mask_values=(2,),  # 1 is the kidney, 3 a cyst
            patient="{case_id}",
            sex="{gender}",
            age="{age_at_nephrectomy}",
        ),
    ),
)

_HEMORRHAGE = Source(
    name="hemorrhage",
    domain="ct",
    folder="ct/hemorrhage",
    license="CC-BY-4.0",
    options=("hemorrhage", "no hemorrhage"),
    readers=(
        FolderTable(
            table="hemorrhage_diagnosis.csv",
            file="Patients_CT/{PatientNumber:0>3}/brain/{SliceNumber}.jpg",
            also=("Patients_CT/{PatientNumber:0>3}/bone/{SliceNumber}.jpg",),
            label="{No_Hemorrhage}",
            labels={"0": "hemorrhage", "1": "no hemorrhage"},
            mask=hemorrhage_mask,
            patient="{PatientNumber}",
        ),
    ),
)

_RSPECT = Source(
    name="rspect",
    domain="ct",
    folder="ct/rspect",
    license="Kaggle competition rules",
    options=(_NONE, _ACUTE, _CHRONIC),
    window=_EMBOLISM,
    readers=(_rspect,),
)

SOURCES: tuple[Source, ...] = (_LNDB, _INSPECT, _KITS, _HEMORRHAGE, _RSPECT)
"""The five CT data sets, in the order of the paper's table."""
