"""Miniatures of the fundus data sets: their folders, tables and names, one corrupt and one missing
photograph each.

Every function writes one data set below ``root`` and returns the records that must be refused.
"""

from pathlib import Path

from layouts.films import table, truncate
from miniatures import draw


def aptos2019(root: Path) -> list[str]:
    """Twenty photographs, four of each grade."""
    lines = []
    for index in range(20):
        draw(root / "train_images" / f"{index:012x}.png", index)
        lines.append(f"{index:012x},{index % 5}")
    table(root / "train.csv", "id_code,diagnosis", *lines)
    return _spoil(root, "train_images/000000000003.png", "train_images/000000000007.png")


def messidor2(root: Path) -> list[str]:
    """Fourteen examinations of two eyes, one of them without a grade.

    The grades' owner writes ".jpg" where the photographs' owner wrote ".JPG".
    """
    pairs, grades = [], []
    for index in range(14):
        names = [f"IM{2 * index + eye:06d}.JPG" for eye in (0, 1)]
        if index % 2:
            names = [f"20051020_{index:05d}_0{eye}00_PP.png" for eye in (1, 2)]
        for eye, name in enumerate(names):
            draw(root / "IMAGES" / name, 2 * index + eye)
            gradable = (index, eye) != (4, 1)
            grade = f"{index % 5},0,1" if gradable else ",,0"
            grades.append(f"{name.replace('.JPG', '.jpg')},{grade}")
        pairs.append(";".join(names))
    table(root / "messidor-2.csv", "left;right", *pairs)
    columns = "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable"
    table(root / "messidor_data.csv", columns, *grades)
    return _spoil(root, "IMAGES/IM000000.JPG", "IMAGES/20051020_00003_0100_PP.png")


def jichi(root: Path) -> list[str]:
    """Ten patients with four photographs each, over the years and of both eyes; those of the later
    patients lie in a folder.
    """
    lines = []
    for patient in range(1, 11):
        for number in range(1, 5):
            name = f"{patient}_{number}_{'LR'[number % 2]}.jpg"
            draw(root / ("documents" if patient > 5 else "") / name, 100 * patient + number)
            grade = ("ndr", "sdr", "ppdr", "pdr")[(patient + number) % 4]
            lines.append(f"{name},pdr,{grade}")
    columns = "Image,Davis_grading_of_concatenated_figures,Davis_grading_of_one_figure"
    table(root / "list.csv", columns, *lines)
    return _spoil(root, "2_1_R.jpg", "3_2_L.jpg")


def _spoil(root: Path, corrupt: str, missing: str) -> list[str]:
    truncate(root / corrupt)
    (root / missing).unlink()
    return [corrupt, missing]
