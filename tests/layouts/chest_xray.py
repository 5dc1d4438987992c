"""Miniatures of the chest X-ray data sets, in their own folder trees and tables."""

from pathlib import Path

import numpy as np
from layouts.films import film, lesioned, noise, picture, table, truncate

ALPHABETICAL = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other",
    "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
CHEXPERT_ORDER = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
VINDR_COLUMNS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
VINDR_LESIONS = {"f1": [np.s_[3:9, 2:8]], "b4": [np.s_[1:10, 2:10]], "t2": [np.s_[1:7, 1:6]]}
"""Where the lesions are that most readers of VinDr-CXR, or the consensus, saw."""


def _marks(columns: tuple[str, ...], **marks: str) -> str:
    by_name = {name.replace("_", " "): mark for name, mark in marks.items()}
    return ",".join(by_name.get(column, "") for column in columns)


def mimic_cxr(data_root: Path) -> Path:
    """Eight images of six patients; image d6 is cut off, d7 is missing, study s8 has no labels."""
    root = data_root / "chest_xray" / "mimic_cxr"
    listed = [  # image, study, patient, split
        ("d1", 501, 10000032, "train"), ("d2", 501, 10000032, "train"),
        ("d3", 502, 10000032, "train"), ("d4", 503, 11000011, "validate"),
        ("d5", 504, 12000012, "test"), ("d6", 505, 13000013, "train"),
        ("d7", 506, 14000014, "train"), ("d8", 508, 15000015, "train"),
    ]  # fmt: skip
    lines = [f"{image},{study},{patient},{split}" for image, study, patient, split in listed]
    table(root / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id,study_id,subject_id,split", *lines)
    table(
        root / "mimic-cxr-2.0.0-chexpert.csv.gz",
        "subject_id,study_id," + ",".join(ALPHABETICAL),
        "10000032,501," + _marks(ALPHABETICAL, Edema="1.0", Pneumonia="-1.0", Fracture="0.0"),
        "10000032,502," + _marks(ALPHABETICAL, Pneumonia="-1.0"),
        "11000011,503," + _marks(ALPHABETICAL, No_Finding="1.0"),
        "12000012,504," + _marks(ALPHABETICAL, Edema="1.0", Support_Devices="1.0"),
        "13000013,505," + _marks(ALPHABETICAL, No_Finding="1.0"),
        "14000014,506," + _marks(ALPHABETICAL, Cardiomegaly="1.0"),
    )
    for seed, (image, study, patient, _) in enumerate(listed):
        folder = root / "files" / f"p{str(patient)[:2]}" / f"p{patient}" / f"s{study}"
        picture(folder / f"{image}.jpg", noise(seed))
    truncate(root / "files/p13/p13000013/s505/d6.jpg")
    (root / "files/p14/p14000014/s506/d7.jpg").unlink()
    return data_root


def chexpert(data_root: Path) -> Path:
    """Six training images, of which 4 is cut off and 5 is missing, and two of radiologists."""
    root = data_root / "chest_xray" / "chexpert" / "CheXpert-v1.0"
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_ORDER)
    said = [
        {"No_Finding": "1.0"}, {"Atelectasis": "1.0", "Edema": "-1.0"}, {"Pneumonia": "-1.0"},
        {"Edema": "1.0", "Fracture": "0.0"}, {"Edema": "1.0"}, {"No_Finding": "1.0"},
    ]  # fmt: skip
    for part, marks in (("train", said), ("valid", said[:2])):
        lines = []
        for number, one in enumerate(marks):
            patient = f"patient{number // 2 + (1 if part == 'train' else 64541):05d}"
            name = f"{part}/{patient}/study{number + 1}/view1_frontal.jpg"
            picture(root / name, noise(100 + number + 50 * (part == "valid")))
            sex_age = "Female,61" if number % 2 else "Male,44"
            path = f"CheXpert-v1.0/{name}"
            lines.append(f"{path},{sex_age},Frontal,AP,{_marks(CHEXPERT_ORDER, **one)}")
        table(root / f"{part}.csv", header, *lines)
    truncate(root / "train/patient00003/study5/view1_frontal.jpg")
    (root / "train/patient00003/study6/view1_frontal.jpg").unlink()
    return data_root


def vindr_cxr(data_root: Path) -> Path:
    """Six training images read by three people each, and two test images with a consensus.

    Image c5 is cut off and a6 is missing. The lines are in another order than the files.
    """
    root = data_root / "chest_xray" / "vindr_cxr"
    header = "image_id,rad_id," + ",".join(VINDR_COLUMNS)
    read = {
        "f1": ({"Pneumonia": "1"}, {"Pneumonia": "1", "COPD": "1"}, {"No_finding": "1"}),
        "e2": ({"No_finding": "1"}, {"No_finding": "1"}, {"No_finding": "1"}),
        "d3": ({"Pneumonia": "1"}, {"Tuberculosis": "1"}, {"No_finding": "1"}),
        "b4": ({"Tuberculosis": "1", "Other_diseases": "1"},) * 3,
        "c5": ({"No_finding": "1"},) * 3,
        "a6": ({"Lung_tumor": "1"},) * 3,
    }
    lines = [
        f"{image},R{reader + 1},{_marks(VINDR_COLUMNS, **three[reader])}"
        for reader in range(3)
        for image, three in read.items()
    ]
    table(root / "annotations/image_labels_train.csv", header, *lines)
    table(
        root / "annotations/annotations_train.csv",
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
        "f1,R1,Consolidation,2,3,8,9",
        "f1,R2,Infiltration,2.5,3,8,9.5",
        "f1,R2,Nodule/Mass,12,1,15,4",  # nobody else saw it
        "f1,R3,No finding,,,,",
        *(f"{image},R{reader},No finding,,,," for image in ("e2", "c5") for reader in (1, 2, 3)),
        *(f"b4,R{reader},Lung cavity,{reader},1,{reader + 8},10" for reader in (1, 2, 3)),
    )
    consensus = header.replace(",rad_id", "").replace("Other diseases", "Other disease")
    table(
        root / "annotations/image_labels_test.csv",
        consensus,
        "t2," + _marks(VINDR_COLUMNS, Other_diseases="1"),
        "t1," + _marks(VINDR_COLUMNS, No_finding="1"),
    )
    table(
        root / "annotations/annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max",
        "t2,Pneumothorax,1,1,6,7",
        "t1,No finding,,,,",
    )
    for seed, image in enumerate([*read, "t1", "t2"]):
        part = "test" if image in ("t1", "t2") else "train"
        film(root / part / f"{image}.dicom", lesioned(200 + seed, *VINDR_LESIONS.get(image, ())))
    truncate(root / "train/c5.dicom")
    (root / "train/a6.dicom").unlink()
    return data_root


def covid19(data_root: Path) -> Path:
    """Five images a class to train on, two to test; copies and augmented ones lie beside them.

    The first two of each training class are of one child, and one image is cut off. Without a
    table no file can be missing.
    """
    root = data_root / "chest_xray" / "covid19"
    classes = ("Normal", "BacterialPneumonia", "ViralPneumonia", "COVID-19")
    for label, name in enumerate(classes):
        for number in range(7):
            part = "TrainData" if number < 5 else "ValData"
            child = {"BacterialPneumonia": "bacteria", "ViralPneumonia": "virus"}.get(name)
            stem = f"person{max(number, 1)}_{child}_{number}" if child else f"{number}"
            pixels = noise(300 + 10 * label + number)
            picture(root / part / name / f"{stem}.jpg", pixels)
            if part == "TrainData":
                picture(root / "NonAugmentedTrain" / name / f"{stem}.jpg", pixels)
    for number in range(3):
        extra = root / "TrainData" / "OversampledAugmentedCOVID-19" / "COVID-19"
        picture(extra / f"a{number}.jpg", noise(390 + number))
    truncate(root / "TrainData" / "Normal" / "0.jpg")
    return data_root


def coronahack(data_root: Path) -> Path:
    """Eight images, of which one has no class, one is cut off and one is missing."""
    root = data_root / "chest_xray" / "coronahack"
    listed = [
        ("IM-0128-0001.jpeg", "Normal", "TRAIN", ""),
        ("IM-0128-0002.jpeg", "Normal", "TRAIN", ""),
        ("person1_bacteria_1.jpeg", "Pnemonia", "TRAIN", "bacteria"),
        ("person7_virus_9.jpeg", "Pnemonia", "TRAIN", "Virus"),
        ("smoke.jpeg", "Pnemonia", "TRAIN", "Stress-Smoking"),
        ("person8_virus_10.jpeg", "Pnemonia", "TRAIN", "Virus"),
        ("person9_virus_11.jpeg", "Pnemonia", "TRAIN", "Virus"),
        ("person100_bacteria_475.jpeg", "Pnemonia", "TEST", "bacteria"),
        ("NORMAL2-IM-0128-0001.jpeg", "Normal", "TEST", ""),
    ]
    lines = [
        f"{n},{name},{label},{part},,{cause}" for n, (name, label, part, cause) in enumerate(listed)
    ]
    table(
        root / "Chest_xray_Corona_Metadata.csv",
        ",X_ray_image_name,Label,Dataset_type,Label_2_Virus_category,Label_1_Virus_category",
        *lines,
    )
    images = root / "Coronahack-Chest-XRay-Dataset" / "Coronahack-Chest-XRay-Dataset"
    for seed, (name, _, part, _) in enumerate(listed):
        picture(images / part.lower() / name, noise(400 + seed))
    truncate(images / "train" / "person8_virus_10.jpeg")
    (images / "train" / "person9_virus_11.jpeg").unlink()
    return data_root
