"""Miniatures of the ultrasound data sets: their folders, tables and names, one corrupt and one
missing file each.

Every function writes one data set below ``root`` and returns the records that must be refused.
"""

from pathlib import Path

import numpy as np
from layouts.films import Place, lesioned, picture, table, truncate
from layouts.volumes import film_strip, video

FRAMES, SIDE = 8, 32
SHAPE = (20, 24)
LEFT, RIGHT = np.s_[3:9, 4:11], np.s_[3:9, 14:21]


def busi(root: Path) -> list[str]:
    """Twelve images a class, each with a mask; "benign (2)" has two, normal ones are empty."""
    for seed, name in enumerate(("benign", "malignant", "normal")):
        for number in range(1, 13):
            stem = root / f"Dataset_BUSI_with_GT/{name}/{name} ({number})"
            places = () if name == "normal" else (LEFT,)
            if (name, number) == ("benign", 2):
                places = (LEFT, RIGHT)
                picture(stem.with_name(f"{stem.name}_mask_1.png"), _mask(RIGHT))
            picture(stem.with_suffix(".png"), lesioned(100 * seed + number, *places, shape=SHAPE))
            picture(stem.with_name(f"{stem.name}_mask.png"), _mask(*places[:1]))
    truncate(root / "Dataset_BUSI_with_GT/malignant/malignant (3).png")
    (root / "Dataset_BUSI_with_GT/benign/benign (5).png").unlink()
    (root / "Dataset_BUSI_with_GT/normal/normal (7)_mask.png").unlink()
    return ["malignant/malignant (3).png", "benign/benign (5).png", "normal/normal (7).png"]


def covid_blues(root: Path) -> list[str]:
    """Ten patients with two or three videos each, every other with COVID-19; one of unknown age."""
    videos, patients = [], []
    for patient in range(1, 11):
        points = ("R1", "L3", "L3_2") if patient == 4 else ("R1", "L3")
        for number, point in enumerate(points):
            name = f"patient_{patient}_{point}"
            video(root / f"lus_videos/{name}.mp4", 10 * patient + number)
            videos.append(f'{name},2.0,yes,no ,"broken pleura line, B-lines"')
        age = -99.0 if patient == 2 else 40.0 + patient
        patients.append(
            f"{patient},{patient % 2},{float(len(points))},83.0,{patient % 3 % 2}.0,{age}"
        )
    table(root / "severity.csv", "video_file,Severity Score,A-lines,B-lines,comments", *videos)
    columns = "patient_id,cov_test,number_video_files,pat_weight,pat_sex,pat_age"
    table(root / "clinical_variables.csv", columns, *patients[::-1])
    truncate(root / "lus_videos/patient_3_R1.mp4")
    (root / "lus_videos/patient_6_L3.mp4").unlink()
    return ["lus_videos/patient_3_R1.mp4", "lus_videos/patient_6_L3.mp4"]


def covid_us(root: Path) -> list[str]:
    """Clips of the four sites: some of one patient, some not of the lung, one of another class,
    one taken down; another is damaged.
    """
    clips: list[tuple[str, str, str, str, str]] = []
    for number in range(1, 13):
        name = ("COVID", "Pneumonia", "Normal")[number % 3]
        clips.append((f"{number}_butterfly_{name.lower()}", f"B lines_{number}.mp4", "", name, ""))
    clips += [
        ("13_butterfly_covid", "Cardiomyopathy.mp4", "", "COVID", "cardiac"),
        ("44_litfl_pneumonia", "LITFL-Top-100-Ultrasound-012-01.mp4", "", "Pneumonia", ""),
        ("52_litfl_other", "LITFL-Top-100-Ultrasound-013-01.mp4", "", "Other", "lung"),
        ("123_litfl_pneumonia", "LITFL_Pneumonia_case2_1.mp4", "", "Pneumonia", "lung"),
        ("124_litfl_pneumonia", "LITFL_Pneumonia_case2_2.mp4", "", "Pneumonia", "lung"),
        ("132_litfl_pneumonia", "LITFL_Pneumonia_case4.mp4", "", "Pneumonia", "lung"),
        ("49_pocusatlas_covid", "Day 1.gif", r"data\video\POCUSAtlas\20day_patient", "COVID", ""),
        ("50_pocusatlas_covid", "Day 2.gif", r"data\video\POCUSAtlas\20day_patient", "COVID", ""),
    ]
    lines = []
    for seed, (clip, filename, folder, name, kind) in enumerate(clips):
        video(root / f"data/video/cropped/{clip}_prc.avi", seed)
        suffix = filename.rpartition(".")[2]
        lines.append(
            f"{clip},{filename},{suffix},{folder},Site,https://a.b,Convex,{name},,{kind},,"
        )
    columns = "id,filename,filetype,folder,source,url,probe,class,version,type,patient,comment"
    table(root / "utils/video_metadata.csv", columns, *lines)
    truncate(root / "data/video/cropped/4_butterfly_pneumonia_prc.avi")
    (root / "data/video/cropped/6_butterfly_covid_prc.avi").unlink()
    return ["data/video/cropped/4_butterfly_pneumonia_prc.avi"]


def echonet_dynamic(root: Path) -> list[str]:
    """Ten videos, traced at frames 1 and 5, the last of them not at all."""
    listed, traced = [], []
    for number in range(10):
        name = f"0X{number:016X}"
        film_strip(root / f"Videos/{name}.avi", _heart(number))
        side = "TEST" if number > 7 else "VAL" if number == 7 else "TRAIN"
        listed.append(f"{name},55.2,24.1,53.8,{SIDE},{SIDE},50,{FRAMES},{side}")
        for frame in (1, 5) if number < 9 else ():
            traced += [
                f"{name}.avi,15.2,4.3,16.9,26.4,{frame}",  # the long axis, then the chords
                *(f"{name}.avi,{9.5 + frame},{y},24.5,{y + 1.5},{frame}" for y in range(6, 25, 2)),
            ]
    columns = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"
    table(root / "FileList.csv", columns, *listed)
    table(root / "VolumeTracings.csv", "FileName,X1,Y1,X2,Y2,Frame", *traced)
    truncate(root / "Videos/0X0000000000000001.avi")
    (root / "Videos/0X0000000000000003.avi").unlink()
    return [f"0X000000000000000{number}/{frame}" for number in (1, 3) for frame in (1, 5)]


def _mask(*places: Place) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for place in places:
        mask[place] = 255
    return mask


def _heart(number: int) -> np.ndarray:
    """Dark frames in which what is traced in frames 1 and 5 is bright."""
    frames = np.random.default_rng(number).integers(0, 60, (FRAMES, SIDE, SIDE), dtype=np.uint8)
    for frame in (1, 5):
        frames[frame, 4:27, 9 + frame : 25] = 255
    return frames
