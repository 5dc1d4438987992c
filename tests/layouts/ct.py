"""Miniatures of the CT data sets: their folders, tables and names, one corrupt and one missing file
each.

Every function writes one data set below ``root`` and returns the records that must be refused.
"""

import json
import math
from pathlib import Path

import numpy as np
from layouts.films import lesioned, noise, picture, table, truncate
from layouts.volumes import ct_slice, metaimage, nifti

SIDE = 16
NODULES = ((1, 30, 7, np.s_[4:9, 6:12]), (2, 35, 4, np.s_[11:14, 2:5]))
"""Radiologist, slice of the middle, half of the height, and place in a slice, in scan 1 of LNDb."""


def lndb(root: Path) -> list[str]:
    """Scans 1 and 2 with nodules (1 by two radiologists, 2 stored from the head down), 3 to 12 with
    other findings only; the header of 4 is missing, that of 5 damaged; 100 is not in the table.
    """
    depths = {1: 60, 2: 48, **dict.fromkeys((*range(3, 13), 100), 30)}
    for number, depth in depths.items():
        voxels = np.random.default_rng(number).integers(-1000, -600, (depth, SIDE, SIDE))
        for _, middle, half, place in NODULES if number == 1 else ():
            voxels[(slice(middle - half, middle + half + 1), *place)] = 100
        path = root / f"data/LNDb-{number:04d}.mhd"
        metaimage(path, voxels.astype(np.int16), lowest=-100.0, upwards=number != 2)
    lines = [
        _mark(1, radiologist=1, finding=1, slice_number=30, diameter=14),
        _mark(1, radiologist=2, finding=3, slice_number=35, diameter=8),
        _mark(1, radiologist=2, finding=4, slice_number=5, diameter=4, nodule=0),
        _mark(2, radiologist=1, finding=1, slice_number=40, diameter=2),
        *(_mark(number, 1, 1, slice_number=9, diameter=4, nodule=0) for number in range(3, 13)),
    ]
    table(root / "trainNodules.csv", "LNDbID,RadID,FindingID,x,y,z,Nodule,Volume,Text", *lines)
    for radiologist, middle, half, place in NODULES:
        mask = np.zeros((60, SIDE, SIDE), dtype=np.uint8)
        mask[(slice(middle - half, middle + half + 1), *place)] = radiologist
        path = root / f"masks/LNDb-0001_rad{radiologist}.mhd"
        metaimage(path, mask, lowest=-100.0, upwards=radiologist != 2)
    (root / "data/LNDb-0004.mhd").unlink()
    (root / "data/LNDb-0005.mhd").write_text("ObjectType = Image\nNDims = 3\n")
    return ["LNDb-0004", "LNDb-0005"]


def inspect(root: Path) -> list[str]:
    """Eight patients with two studies each, every kind of embolism, one mark censored."""
    marks = ("False\t0\t0", "True\t1\t0", "True\t1\t1", "True\t0\t1", "True\t0\t0")
    mapping, labels, splits = [], [], []
    for study in range(16):
        patient = study // 2
        side = ("train", "train", "train", "train", "valid", "test", "test", "test")[patient]
        nifti(root / f"CTPA/PE{study:05x}.nii.gz", hounsfield(study, 6))
        mapping.append(f"{study}\t{1000 + patient}\t2001-01-0{patient + 1}\tPE{study:05x}")
        labels.append(f"{study}\t{'Censored' if study == 15 else marks[study % 5]}")
        splits.append(f"{study}\t{side}")
    table(
        root / "study_mapping_20250611.tsv",
        "impression_id\tperson_id\tprocedure_DATETIME\timage_id",
        *mapping,
    )
    header = "impression_id\tpe_positive_nlp\tpe_acute\tpe_subsegmentalonly"
    labels[15] += "\t\t"
    table(root / "labels_20250611.tsv", header, *labels)
    table(root / "splits_20250611.tsv", "impression_id\tsplit", *splits, splits[3])
    truncate(root / "CTPA/PE00002.nii.gz")
    (root / "CTPA/PE00004.nii.gz").unlink()
    return ["CTPA/PE00002.nii.gz", "CTPA/PE00004.nii.gz"]


def kits23(root: Path) -> list[str]:
    """Twelve cases, one without a finding of pathology; kidney 1, tumour 2 and cyst 3 in a mask."""
    cases = []
    for number in range(12):
        case = f"case_{number:05d}"
        mask = np.zeros((20, SIDE, SIDE), dtype=np.int16)
        mask[2:18, 3:13, 3:13] = 1
        mask[5:9, 5:8, 6:12] = 2
        mask[12:15, 9:11, 9:11] = 3
        nifti(root / f"dataset/{case}/segmentation.nii.gz", mask)
        bright = np.where(mask == 2, 400, np.minimum(hounsfield(number, 20), 0))
        nifti(root / f"dataset/{case}/imaging.nii.gz", bright)
        malignant = None if number == 11 else number % 3 > 0
        cases.append(
            {
                "case_id": case,
                "gender": ("male", "female")[number % 2],
                "bmi": 29.47,
                "comorbidities": {"copd": False},
                "age_at_nephrectomy": 40 + number,
                "malignant": malignant,
                "tumor_histologic_subtype": "clear_cell_rcc",
            }
        )
    (root / "dataset/kits23.json").write_text(json.dumps(cases, indent=2))
    truncate(root / "dataset/case_00003/imaging.nii.gz")
    (root / "dataset/case_00005/imaging.nii.gz").unlink()
    return [f"dataset/case_{number:05d}/imaging.nii.gz" for number in (3, 5)]


def hemorrhage(root: Path) -> list[str]:
    """Ten patients with four slices each, in two windows; slices 2 and 3 of every other bleed."""
    lines = []
    for patient in range(49, 59):
        folder = root / f"Patients_CT/{patient:03d}"
        for number in range(1, 5):
            seed, bleeds = 1000 * patient + 10 * number, patient % 2 == 0 and number in (2, 3)
            blood = lesioned(seed, *([np.s_[8:16, 8:16]] if bleeds else []), shape=(24, 20))
            picture(folder / f"brain/{number}.jpg", blood)
            picture(folder / f"bone/{number}.jpg", noise(seed + 1, (24, 20)))
            if bleeds:
                mask = np.uint8(255) * (blood == 255)
                picture(folder / f"brain/{number}_HGE_Seg.jpg", mask)
            lines.append(f"{patient},{number},0,{int(bleeds)},0,0,0,{int(not bleeds)},0")
    header = (
        "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,"
        "Subdural,No_Hemorrhage,Fracture_Yes_No"
    )
    table(root / "hemorrhage_diagnosis.csv", header, *lines)
    truncate(root / "Patients_CT/051/bone/2.jpg")
    (root / "Patients_CT/052/brain/4.jpg").unlink()
    return ["Patients_CT/051/brain/2.jpg", "Patients_CT/052/brain/4.jpg"]


RSPECT_COLUMNS = (
    "StudyInstanceUID,SeriesInstanceUID,SOPInstanceUID,pe_present_on_image,negative_exam_for_pe,"
    "qa_motion,qa_contrast,flow_artifact,rv_lv_ratio_gte_1,rv_lv_ratio_lt_1,leftsided_pe,"
    "chronic_pe,true_filling_defect_not_pe,rightsided_pe,acute_and_chronic_pe,central_pe,"
    "indeterminate"
)


def rspect(root: Path) -> list[str]:
    """Twelve studies of eight slices: by turns negative, acute, chronic and both, but 11, which is
    indeterminate; embolism shows on slices 2 to 5. The pictures of studies 1 and 5 are spoiled.
    """
    lines = []
    for study in range(12):
        kind = ("negative", "acute", "chronic", "both")[study % 4] if study < 11 else "unclear"
        for number in range(8):
            name = f"s{study:02d}/e{study:02d}/i{study:02d}{number}"
            ct_slice(root / f"train/{name}.dcm", hounsfield(100 * study + number, 1)[0])
            shown = kind in ("acute", "chronic", "both") and 2 <= number <= 5
            marks = [shown, kind == "negative", 0, 0, 0, 0, 0, 0, kind == "chronic", 0, 0]
            marks += [kind == "both", 0, kind == "unclear"]
            lines.append(",".join([*name.split("/"), *(str(int(mark)) for mark in marks)]))
    table(root / "train.csv", RSPECT_COLUMNS, *lines)
    for path in (root / "train/s01").rglob("*.dcm"):
        truncate(path)
    for path in (root / "train/s05").rglob("*.dcm"):
        path.unlink()
    return ["s01", "s05"]


def _mark(
    scan: int, radiologist: int, finding: int, slice_number: int, diameter: float, nodule: int = 1
) -> str:
    volume = 4 / 3 * math.pi * (diameter / 2) ** 3
    return f"{scan},{radiologist},{finding},8,8,{slice_number - 100.0},{nodule},{volume},5"


def hounsfield(seed: int, depth: int) -> np.ndarray:
    """Voxels of a CT that depend on ``seed`` alone: slices x rows x columns."""
    voxels = np.random.default_rng(seed).integers(-1000, 400, (depth, SIDE, SIDE))
    return voxels.astype(np.int16)
