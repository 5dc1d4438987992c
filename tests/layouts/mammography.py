"""Miniatures of the mammography data sets, in their own folder trees and tables."""

from pathlib import Path

import numpy as np
from layouts.films import film, lesioned, noise, table, truncate

VINDR_LEVEL = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density"
)
CBIS_KINDS = {
    "mass": ("breast_density", "mass shape,mass margins"),
    "calc": ("breast density", "calc type,calc distribution"),
}
METADATA = (
    "Series UID,Collection,3rd Party Analysis,Data Description URI,Subject ID,Study UID,"
    "Study Description,Study Date,Series Description,Manufacturer,Modality,SOP Class Name,"
    "SOP Class UID,Number of Images,File Size,File Location,Download Timestamp"
)
MASSES = np.s_[3:9, 2:8], np.s_[1:4, 10:12]
"""Where the masses of view L1 of study a of VinDr-Mammo are."""


def vindr_mammo(data_root: Path) -> Path:
    """Four views of each of four studies, one of them for testing; c.L1 is cut off, c.L2 missing.

    Study a has a mass in view L1 that two lines describe.
    """
    root = data_root / "mammography" / "vindr_mammo"
    levels, findings = [], []
    for seed, (study, birads) in enumerate((("a", 4), ("b", 1), ("c", 2), ("d", 5))):
        split = "test" if study == "d" else "training"
        for number, view in enumerate(("L1", "L2", "R1", "R2")):
            side = f"{view[0]},{'CC' if view[1] == '1' else 'MLO'}"
            level = f"{study},s,{study}{view},{side},12,16,BI-RADS {birads},DENSITY C"
            levels.append(f"{level},{split}")
            boxes = {"aL1": ("2,3,8,9", "9.5,1,12,4")}.get(f"{study}{view}", (",,,",))
            kind = "['No Finding']" if boxes == (",,,",) else "['Mass']"
            findings += [f"{level},{kind},BI-RADS {birads},{box},{split}" for box in boxes]
            masses = MASSES if f"{study}{view}" == "aL1" else ()
            pixels = lesioned(800 + 4 * seed + number, *masses)
            film(root / "images" / study / f"{study}{view}.dicom", pixels)
    table(root / "breast-level_annotations.csv", f"{VINDR_LEVEL},split", *levels)
    table(
        root / "finding_annotations.csv",
        f"{VINDR_LEVEL},finding_categories,finding_birads,xmin,ymin,xmax,ymax,split",
        *findings,
    )
    truncate(root / "images/c/cL1.dicom")
    (root / "images/c/cL2.dicom").unlink()
    return data_root


def cbis_ddsm(data_root: Path) -> Path:
    """Six films in four tables, each lesion with a mask and a cut-out in one series.

    Patient P_00001 has two masses on one film and calcifications in the test set. Of the films of
    P_00005 and P_00006 the first is cut off and the second is missing.
    """
    root = data_root / "mammography" / "cbis_ddsm"
    series: list[str] = []
    lesions = {  # table: patient, lesion on its film, assessment
        ("mass", "train"): (
            ("P_00001", 1, 4),
            ("P_00001", 2, 5),
            ("P_00002", 1, 0),
            ("P_00005", 1, 3),
            ("P_00006", 1, 3),
        ),
        ("mass", "test"): (("P_00003", 1, 2),),
        ("calc", "train"): (("P_00004", 1, 3),),
        ("calc", "test"): (("P_00001", 1, 2),),
    }
    for (kind, part), listed in lesions.items():
        lines = [_cbis_line(root, kind, part, *lesion, series) for lesion in listed]
        density, describing = CBIS_KINDS[kind]
        table(
            root / "csv" / f"{kind}_case_description_{part}_set.csv",
            f"patient_id,{density},left or right breast,image view,abnormality id,"
            f"abnormality type,{describing},assessment,pathology,subtlety,image file path,"
            "cropped image file path,ROI mask file path",
            *lines,
        )
    table(root / "metadata.csv", METADATA, *dict.fromkeys(series))
    truncate(cbis_film(root, "Mass-Training_P_00005"))
    cbis_film(root, "Mass-Training_P_00006").unlink()
    return data_root


def cbis_film(root: Path, subject: str) -> Path:
    """The whole film of a subject's left breast."""
    return next((root / "CBIS-DDSM" / f"{subject}_LEFT_CC").rglob("*full mammogram*/1-1.dcm"))


def _cbis_line(
    root: Path, kind: str, part: str, patient: str, lesion: int, assessment: int, series: list[str]
) -> str:
    subject = f"{kind.title()}-{'Training' if part == 'train' else 'Test'}_{patient}_LEFT_CC"
    whole = _series(root, subject, "full mammogram images", series)
    drawn = _series(root, f"{subject}_{lesion}", "ROI mask images", series)
    places = [np.s_[2:5, 5 * number : 5 * number + 3] for number in range(1, lesion + 1)]
    film(whole / "1-1.dcm", lesioned(sum(map(ord, subject)), *places))
    mask = np.zeros((12, 16), dtype=np.uint8)
    mask[places[-1]] = 255
    crop_first = lesion == 1  # the order of mask and cut-out changes
    film(drawn / f"1-{1 + crop_first}.dcm", mask)
    film(drawn / f"1-{2 - crop_first}.dcm", noise(lesion, (4, 4)))
    path = f"{subject}/st.{subject}/se.{subject}/000000.dcm"
    roi = f"{subject}_{lesion}/st.{subject}_{lesion}/se.{subject}_{lesion}"
    return (
        f"{patient},3,LEFT,CC,{lesion},{kind},X,Y,{assessment},MALIGNANT,4,"
        f'{path},"{roi}/000000.dcm\n","{roi}/000001.dcm\n"'
    )


def _series(root: Path, subject: str, description: str, series: list[str]) -> Path:
    location = f"CBIS-DDSM/{subject}/07-20-2016-DDSM-NA-1/1.000000-{description}-2"
    cells = dict.fromkeys(METADATA.split(","), "")
    cells |= {"Series UID": f"se.{subject}", "Study UID": f"st.{subject}", "Subject ID": subject}
    windows = ".\\" + location.replace("/", "\\")
    series.append(",".join((cells | {"File Location": windows}).values()))
    return root / location


def cmmd(data_root: Path) -> Path:
    """Twelve patients, the first with both breasts in the spreadsheet.

    Each has two films of a left breast and two of a right one. Patient 5 has a film that is
    damaged, patient 6 has none.
    """
    from openpyxl import Workbook

    root = data_root / "mammography" / "cmmd"
    book = Workbook()
    book.active.append(
        ["ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"]
    )
    for number in range(1, 13):
        patient = f"D1-{number:04d}"
        kind = "Malignant" if number % 3 else "Benign"
        book.active.append([patient, "L", 40 + number, 2, "mass", kind, "Luminal A"])
        study = root / "CMMD" / patient / "07-18-2010-NA-NA-79377" / "1.000000-NA-70244"
        for view, side in enumerate("LLRR", start=1):
            film(study / f"1-{view}.dcm", noise(900 + 4 * number + view), side)
    book.active.append(["D1-0001", "R", 41, 2, "calcification", "Benign", None])
    book.save(root / "CMMD_clinicaldata_revision.xlsx")
    damaged = next((root / "CMMD" / "D1-0005").rglob("1-1.dcm"))
    damaged.write_bytes(b"<html>not found</html>")
    for path in (root / "CMMD" / "D1-0006").rglob("*.dcm"):
        path.unlink()
    return data_root
