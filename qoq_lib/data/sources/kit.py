"""The clinical kit: small subsets of nine public data sets, one per domain, in their own layouts.

Three are subsets of data sets of the paper (BUSI, Brain Tumor, LC25000) and keep their names: the
same patients and one card. The others have no card, so nothing of them is shared.

The tables list more than the folders hold, so a listed file that is not there is counted and not
refused. What is left out on purpose: free text that names the diagnosis (clinical notes of the
chest X-rays, captions of the ultrasounds), the chest X-ray boxes (lungs, not lesions) and IDRiD's
lesion masks (set A is numbered independently of the graded set B and cannot be joined to it).
"""

from collections.abc import Mapping
from dataclasses import replace

from qoq_lib.data.sources.folder_per_class import FolderPerClass
from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.mri import BRAIN_TUMOR
from qoq_lib.data.sources.pathology import LUNG
from qoq_lib.data.sources.source import Box, Source
from qoq_lib.data.sources.tables import Row
from qoq_lib.data.sources.ultrasound import BUSI
from qoq_lib.data.sources.wfdb_header import WfdbHeader

_MIAS_SIDE = 1024.0

_CHEST_FINDINGS: Mapping[str, str | None] = {
    "COVID-19": "COVID-19",
    "COVID-19, ARDS": "COVID-19",
    **dict.fromkeys(("SARS", "Varicella", "Influenza"), "other viral pneumonia"),
    **dict.fromkeys(
        ("Streptococcus", "Klebsiella", "Mycoplasma Bacterial Pneumonia", "Legionella", "Bacterial",
         "E.Coli", "Chlamydophila"),
        "bacterial pneumonia",
    ),
    "Pneumocystis": "fungal pneumonia",
    "No Finding": "no finding",
    # No cause stated, not yet labelled by its authors, or (lipoid) too few for a class.
    **dict.fromkeys(("Pneumonia", "ARDS", "todo", "Unknown", "Lipoid"), None),
}  # fmt: skip

# SNOMED CT codes of the PhysioNet/CinC Challenge 2021 (https://moody-challenge.physionet.org/2021).
_ECG_FINDINGS: dict[str, tuple[str, ...]] = {
    "sinus rhythm": ("426783006",),
    "sinus tachycardia": ("427084000",),
    "sinus bradycardia": ("426177001",),
    "atrial fibrillation or flutter": ("164889003", "164890007"),
    "premature beats": ("284470004", "63593006", "427172004", "17338001", "164884008", "251170000"),
    "conduction block": (
        "270492004", "59118001", "713427006", "713426002", "164909002", "733534002", "445118002",
        "445211001", "698252002",
    ),
    "ST-T change": (
        "164934002", "59931005", "55930002", "428750005", "164930006", "429622005", "164931005",
        "426434006",
    ),
    "ventricular hypertrophy or high voltage": ("164873001", "89792004", "55827005"),
}  # fmt: skip


def mias_box(row: Row) -> Box | None:
    """The box around a mini-MIAS circle, ``None`` for normal films and unlocated lesions.

    The table gives centre and radius with the origin at the bottom left of 1024 x 1024 pixels;
    widespread calcifications have the words "*NOTE 3*" in place of a centre.
    """
    if not row["r"]:
        return None
    x, y, radius = float(row["x"]), _MIAS_SIDE - float(row["y"]), float(row["r"])
    edges = (x - radius, y - radius, x + radius, y + radius)
    x1, y1, x2, y2 = (min(max(edge, 0.0), _MIAS_SIDE) for edge in edges)
    return x1, y1, x2, y2


def mias_patient(row: Row) -> str:
    """Films 2k-1 and 2k are the two breasts of patient k (the data set's Info.txt, note 1)."""
    return f"{(int(row['Name'].removeprefix('mdb')) + 1) // 2:03d}"


def _idrid(part: str, name: str, split: str) -> FolderTable:
    grading = "B. Disease Grading"
    return FolderTable(
        table=f"{grading}/2. Groundtruths/{part}. IDRiD_Disease Grading_{name} Labels.csv",
        file=f"{grading}/1. Original Images/{part}. {name} Set/{{Image name}}.jpg",
        label="{Retinopathy grade}",
        labels={
            "0": "no retinopathy",
            "1": "mild retinopathy",
            "2": "moderate retinopathy",
            "3": "severe retinopathy",
            "4": "proliferative retinopathy",
        },
        split=split,
    )


_CHEST = Source(
    name="covid_chestxray",
    domain="chest_xray",
    folder="chest_xray/covid_chestxray_boxes",
    license="not stated",
    options=(
        "COVID-19",
        "other viral pneumonia",
        "bacterial pneumonia",
        "fungal pneumonia",
        "no finding",
    ),
    readers=(
        FolderTable(
            table="metadata.csv",
            file="{folder}/{filename}",
            label="{finding}",
            labels=_CHEST_FINDINGS,
            patient="{patientid}",
            sex="{sex}",
            age="{age}",
            license="{license}",
        ),
    ),
)

_MAMMOGRAPHY = Source(
    name="mini_mias",
    domain="mammography",
    folder="mammography/mini_mias",
    license="research use only",
    options=("normal", "benign abnormality", "malignant abnormality"),
    readers=(
        FolderTable(
            table="labels_converted.csv",
            file="pgm/{Name}.pgm",
            label="{Type}",
            labels={"": "normal", "B": "benign abnormality", "M": "malignant abnormality"},
            several=True,  # mdb144 has a benign and a malignant lesion
            patient=mias_patient,
            box=mias_box,
        ),
    ),
)

_DERMOSCOPY = Source(
    name="isic2017",
    domain="dermoscopy",
    folder="dermoscopy/isic2017",
    license="not stated",
    options=("melanoma", "seborrheic keratosis", "nevus"),
    readers=(
        FolderTable(
            table="resized_ISIC-2017_Training_Part3_GroundTruth.csv",
            file="resized_images/resized_{image_id}.jpg",
            label=("melanoma", "seborrheic_keratosis"),
            labels={
                "melanoma": "melanoma",
                "seborrheic_keratosis": "seborrheic keratosis",
                "": "nevus",
            },
            mask="resized_masks/resized_{image_id}_segmentation.png",
        ),
    ),
)

_CT = Source(
    name="covid_ct",
    domain="ct",
    folder="ct/covid_ct",
    license="not stated",
    options=("COVID-19", "no COVID-19"),
    # "<figure>%<panel>.png": the panels of one published figure are taken for one patient.
    readers=(
        FolderPerClass({"COVID": "COVID-19", "NonCOVID": "no COVID-19"}, patient=r"^(.+)%\d+\."),
    ),
)

_FUNDUS = Source(
    name="idrid",
    domain="fundus",
    folder="fundus/idrid",
    license="CC BY 4.0",
    options=(
        "no retinopathy",
        "mild retinopathy",
        "moderate retinopathy",
        "severe retinopathy",
        "proliferative retinopathy",
    ),
    readers=(_idrid("a", "Training", "train"), _idrid("b", "Testing", "test")),
)

_ULTRASOUND = replace(BUSI, readers=(FolderPerClass(),))  # a copy without the masks

_PATHOLOGY = Source(
    name="lc25000",
    domain="pathology",
    folder="pathology/lc25000/lung_image_sets",
    license="not stated",
    options=tuple(LUNG.values()),
    readers=(FolderPerClass(LUNG),),
)

_ECG = Source(
    name="cinc2021",
    domain="ecg",
    folder="ecg/cinc2021",
    license="not stated",
    options=tuple(_ECG_FINDINGS),
    readers=(
        WfdbHeader(
            codes={code: finding for finding, codes in _ECG_FINDINGS.items() for code in codes},
            # A sinus rhythm that is too fast or too slow is named by its rate alone.
            implied={"sinus rhythm": frozenset(("sinus tachycardia", "sinus bradycardia"))},
        ),
    ),
)

KIT: tuple[Source, ...] = tuple(
    replace(source, missing="skip")
    for source in (
        _CHEST, _MAMMOGRAPHY, _DERMOSCOPY, _CT, _FUNDUS, _ULTRASOUND, BRAIN_TUMOR, _PATHOLOGY, _ECG,
    )
)  # fmt: skip
"""One source per domain, in the order of ``qoq_lib.domains``."""
