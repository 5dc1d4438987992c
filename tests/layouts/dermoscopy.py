"""Miniatures of the dermoscopy data sets, in their own folder trees and tables."""

from pathlib import Path

import numpy as np
from layouts.films import lesioned, noise, picture, table, truncate

ISIC2020_COLUMNS = (
    "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
    "benign_malignant,target"
)
HAM_CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
PAD_COLUMNS = (
    "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,"
    "skin_cancer_history,cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,"
    "diameter_1,diameter_2,diagnostic,itch,grew,hurt,changed,bleed,elevation,img_id,biopsed"
)
OUTLINED = np.s_[2:6, 4:9]
"""What the outlines of HAM10000 enclose."""


def isic2020(data_root: Path) -> Path:
    """Thirty-two images of eight patients; image 3 is cut off and 9 is missing."""
    root = data_root / "dermoscopy" / "isic2020"
    lines = []
    for number in range(32):
        kind = "malignant,1" if number % 5 == 0 else "benign,0"
        sex_age = "male,45.0" if number % 8 < 4 else "female,"
        lines.append(f"ISIC_{number:07d},IP_{number % 8:07d},{sex_age},torso,unknown,{kind}")
        picture(root / "train" / f"ISIC_{number:07d}.jpg", noise(500 + number))
    table(root / "ISIC_2020_Training_GroundTruth.csv", ISIC2020_COLUMNS, *lines)
    truncate(root / "train" / "ISIC_0000003.jpg")
    (root / "train" / "ISIC_0000009.jpg").unlink()
    return data_root


def ham10000(data_root: Path) -> Path:
    """Forty-two images of twenty-one lesions in seven classes; 3 is cut off and 9 is missing.

    Images 0, 1 and 2 have an outline: columns 4 to 8 of rows 2 to 5.
    """
    root = data_root / "dermoscopy" / "ham10000"
    names = [f"ISIC_{24306 + number:07d}" for number in range(42)]
    truth, lesions = [], []
    for number, name in enumerate(names):
        marks = ("1.0" if number % 7 == column else "0.0" for column in range(7))
        truth.append(f"{name},{','.join(marks)}")
        lesions.append(f"{name},HAM_{number % 21:07d},histopathology")
        pixels = lesioned(600 + number, *([OUTLINED] if number < 3 else []))
        picture(root / "ISIC2018_Task3_Training_Input" / f"{name}.jpg", pixels)
    folder = root / "ISIC2018_Task3_Training_GroundTruth"
    table(folder / f"{folder.name}.csv", "image," + ",".join(HAM_CLASSES), *truth)
    groupings = root / "ISIC2018_Task3_Training_LesionGroupings.csv"
    table(groupings, "image,lesion_id,diagnosis_confirm_type", *lesions)
    outline = np.zeros((12, 16), dtype=np.uint8)
    outline[OUTLINED] = 255
    for name in names[:3]:
        mask = root / "ISIC2018_Task1_Training_GroundTruth" / f"{name}_segmentation.png"
        picture(mask, outline)
    truncate(root / "ISIC2018_Task3_Training_Input" / f"{names[3]}.jpg")
    (root / "ISIC2018_Task3_Training_Input" / f"{names[9]}.jpg").unlink()
    return data_root


def pad_ufes_20(data_root: Path) -> Path:
    """Thirty-six photographs of twelve patients in three folders; 3 is cut off, 9 is missing."""
    root = data_root / "dermoscopy" / "pad_ufes_20"
    kinds = ("MEL", "NEV", "BCC", "ACK", "SCC", "SEK")
    lines = []
    for number in range(36):
        patient, name = f"PAT_{number % 12}", f"PAT_{number % 12}_{number}_{700 + number}.png"
        cells = dict.fromkeys(PAD_COLUMNS.split(","), "")
        cells |= {"patient_id": patient, "lesion_id": str(number), "img_id": name}
        cells |= {"age": "55", "gender": "FEMALE" if number % 2 else "", "biopsed": "True"}
        cells |= {"diagnostic": kinds[number % 6]}
        lines.append(",".join(cells.values()))
        part = f"imgs_part_{number % 3 + 1}"
        photograph = np.stack([noise(700 + number + shift) for shift in range(3)], axis=2)
        picture(root / "images" / part / part / name, photograph)
    table(root / "metadata.csv", PAD_COLUMNS, *lines)
    truncate(root / "images/imgs_part_1/imgs_part_1/PAT_3_3_703.png")
    (root / "images/imgs_part_1/imgs_part_1/PAT_9_9_709.png").unlink()
    return data_root
