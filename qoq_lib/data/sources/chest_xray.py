"""Chest X-ray: MIMIC-CXR-JPG, CheXpert, VinDr-CXR, COVID-19 Detection and CoronaHack.

Uncertain labels of the text tools (-1 in MIMIC-CXR-JPG and CheXpert) are not taken for findings,
and an image without a certain finding has no question: the paper's data do the same, so that
counts and results compare. The reports of MIMIC-CXR are left out, because they name the findings.
"""

import re
from dataclasses import replace

from qoq_lib.data.sources.folder_per_class import FolderPerClass
from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.source import Source
from qoq_lib.data.sources.tables import Join, Row, box_in

FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
"""The fourteen labels of MIMIC-CXR-JPG and CheXpert; several may apply."""

_FINDINGS_OR_NONE: dict[str, str | None] = {**{one: one for one in FINDINGS}, "": None}

# File names of paediatric patients: person12_virus_34.jpeg, IM-0115-0001.jpeg.
_CHILD = r"(person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+)"

_MIMIC_CXR = Source(
    name="mimic_cxr",
    domain="chest_xray",
    folder="chest_xray/mimic_cxr",
    license="PhysioNet Credentialed Health Data License 1.5.0",
    options=FINDINGS,
    cohort="mimic",  # the patients of MIMIC-IV
    readers=(
        FolderTable(
            table="mimic-cxr-2.0.0-split.csv.gz",
            joins=(Join("mimic-cxr-2.0.0-chexpert.csv.gz", "study_id", "{study_id}"),),
            file="files/p{subject_id:.2}/p{subject_id}/s{study_id}/{dicom_id}.jpg",
            label=FINDINGS,
            labels=_FINDINGS_OR_NONE,
            several=True,
            patient="{subject_id}",
            split="{split}",
        ),
    ),
)

_CHEXPERT_TRAIN = FolderTable(
    table="CheXpert-v1.0/train.csv",
    file="{Path}",
    label=FINDINGS,
    labels=_FINDINGS_OR_NONE,
    several=True,
    patient=lambda row: row["Path"].split("/")[2],
    sex="{Sex}",
    age="{Age}",
    split="train",
)

_CHEXPERT = Source(
    name="chexpert",
    domain="chest_xray",
    folder="chest_xray/chexpert",
    license="Stanford University Dataset Research Use Agreement",
    options=FINDINGS,
    readers=(
        _CHEXPERT_TRAIN,
        # The set read by radiologists is what the paper tests on.
        replace(_CHEXPERT_TRAIN, table="CheXpert-v1.0/valid.csv", split="test"),
    ),
)


_VINDR_DISEASES: dict[str, str | None] = {
    "Lung tumor": "lung tumor",
    "Pneumonia": "pneumonia",
    "Tuberculosis": "tuberculosis",
    "COPD": "COPD",
    "Other diseases": "other diseases",
    "No finding": "no finding",
    "": None,
}


def _vindr(split: str, reader: str) -> FolderTable:
    return FolderTable(
        table=f"annotations/image_labels_{split}.csv",
        renamed={"Other disease": "Other diseases"},  # the two tables spell it differently
        file=f"{split}/{{image_id}}.dicom",
        label=tuple(filter(None, _VINDR_DISEASES)),
        labels=_VINDR_DISEASES,
        several=True,
        reader=reader,
        box=box_in("x_min", "y_min", "x_max", "y_max"),
        box_rows=Join(f"annotations/annotations_{split}.csv", "image_id", "{image_id}"),
        split=split,
    )


_VINDR_CXR = Source(
    name="vindr_cxr",
    domain="chest_xray",
    folder="chest_xray/vindr_cxr",
    license="PhysioNet Credentialed Health Data License 1.5.0",
    options=tuple(filter(None, _VINDR_DISEASES.values())),
    # Three readers labelled each training image; the test labels are a consensus.
    readers=(_vindr("train", reader="{rad_id}"), _vindr("test", reader="")),
)

_COVID19_CLASSES = {
    "Normal": "normal",
    "BacterialPneumonia": "bacterial pneumonia",
    "ViralPneumonia": "viral pneumonia",
    "COVID-19": "COVID-19",
}

_COVID19 = Source(
    name="covid19",
    domain="chest_xray",
    folder="chest_xray/covid19",
    license="CC-BY-4.0",
    options=tuple(_COVID19_CLASSES.values()),
    # Its other folders hold the training images again, augmented or not.
    readers=tuple(
        FolderPerClass(_COVID19_CLASSES, _CHILD, files=f"{folder}/*/*", split=split)
        for folder, split in (("TrainData", "train"), ("ValData", "test"))
    ),
)


def coronahack_patient(row: Row) -> str:
    """The child that a file name numbers, else the file itself."""
    name = row["X_ray_image_name"]
    child = re.match(_CHILD, name)
    return child.group(1) if child else name


_CORONAHACK = Source(
    name="coronahack",
    domain="chest_xray",
    folder="chest_xray/coronahack",
    license="CC-BY-4.0",
    options=("normal", "bacterial pneumonia", "viral pneumonia"),
    readers=(
        FolderTable(
            table="Chest_xray_Corona_Metadata.csv",
            file="Coronahack-Chest-XRay-Dataset/**/{X_ray_image_name}",
            label="{Label}/{Label_1_Virus_category}",
            labels={
                "Normal/": "normal",
                "Pnemonia/bacteria": "bacterial pneumonia",
                "Pnemonia/Virus": "viral pneumonia",
                "Pnemonia/Stress-Smoking": None,  # two images: no class of its own
            },
            patient=coronahack_patient,
            split="{Dataset_type}",
        ),
    ),
)

SOURCES: tuple[Source, ...] = (_MIMIC_CXR, _CHEXPERT, _VINDR_CXR, _COVID19, _CORONAHACK)
"""In the order of the paper's table."""
