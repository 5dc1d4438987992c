"""Dermoscopy: ISIC-2020, HAM10000 and PAD-UFES-20.

None of the three has an official split with public labels: ISIC-2020 and PAD-UFES-20 are split by
patient, HAM10000, which names no patients, by lesion.
"""

from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.source import Source
from qoq_lib.data.sources.tables import Join

_CLASSES = (
    "melanoma",
    "nevus",
    "basal cell carcinoma",
    "actinic keratosis or squamous cell carcinoma",
    "other",
)

_ISIC2020 = Source(
    name="isic2020",
    domain="dermoscopy",
    folder="dermoscopy/isic2020",
    license="CC-BY-NC-4.0",
    options=("benign", "malignant"),
    readers=(
        FolderTable(
            table="ISIC_2020_Training_GroundTruth.csv",
            file="train/{image_name}.jpg",
            label="{benign_malignant}",
            patient="{patient_id}",
            sex="{sex}",
            age="{age_approx}",
        ),
    ),
)

_HAM10000 = Source(
    name="ham10000",
    domain="dermoscopy",
    folder="dermoscopy/ham10000",
    license="CC-BY-NC-SA-4.0",
    options=_CLASSES,
    readers=(
        FolderTable(
            table=("ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"),
            joins=(
                Join(
                    "ISIC2018_Task3_Training_LesionGroupings.csv",
                    "image",
                    "{image}",
                    required=True,  # without its lesion an image could stand on two sides
                ),
            ),
            file="ISIC2018_Task3_Training_Input/{image}.jpg",
            label=("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
            labels={
                **dict(zip(("MEL", "NV", "BCC", "AKIEC"), _CLASSES, strict=False)),
                **dict.fromkeys(("BKL", "DF", "VASC"), "other"),
            },
            patient="{lesion_id}",
            # Task 1 outlined a part of the images.
            mask="ISIC2018_Task1_Training_GroundTruth/{image}_segmentation.png",
            mask_partial=True,
        ),
    ),
)

_PAD_UFES_20 = Source(
    name="pad_ufes_20",
    domain="dermoscopy",
    folder="dermoscopy/pad_ufes_20",
    license="CC-BY-4.0",
    options=_CLASSES,
    readers=(
        FolderTable(
            table="metadata.csv",
            file="images/**/{img_id}",
            label="{diagnostic}",
            labels={
                "MEL": "melanoma",
                "NEV": "nevus",
                "BCC": "basal cell carcinoma",
                "ACK": "actinic keratosis or squamous cell carcinoma",
                "SCC": "actinic keratosis or squamous cell carcinoma",
                "SEK": "other",
            },
            patient="{patient_id}",
            sex="{gender}",
            age="{age}",
        ),
    ),
)

SOURCES: tuple[Source, ...] = (_ISIC2020, _HAM10000, _PAD_UFES_20)
"""In the order of the paper's table."""
