"""The ultrasound of the paper: BUSI, COVID-BLUES, COVID-US, and EchoNet-Dynamic as grounding."""

import re
from collections.abc import Iterator, Sequence
from math import ceil, floor
from pathlib import Path, PurePosixPath

from qoq_lib.data.sources.folder_per_class import FolderPerClass
from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.source import Box, Record, Source, as_split, inside
from qoq_lib.data.sources.tables import Join, Row, number_of, read_table

_VENTRICLE = "left ventricle"
_TRACINGS = "VolumeTracings.csv"

# Heart, vena cava and femoral veins of one patient with pneumonia, as the table's comments say.
_NOT_THE_LUNG = frozenset(f"{number}_litfl_pneumonia" for number in range(44, 49))


def covid_us_label(row: Row) -> str:
    """The class of a clip; "" for those that show the heart or the neck and not the lung."""
    elsewhere = row["type"] in ("cardiac", "neck") or row["id"] in _NOT_THE_LUNG
    return "" if elsewhere else row["class"]


def covid_us_patient(row: Row) -> str:
    """The patient, as far as the sites tell: else every clip is its own.

    LITFL ends the names of one case's clips in their number (``...-012-03``, ``..._case3_5``); the
    POCUS Atlas has a patient followed over days in a folder of its own.
    """
    if row["folder"].endswith("_patient"):
        return row["folder"]
    case = re.fullmatch(r"(LITFL.*\d)[-_]\d+", PurePosixPath(row["filename"]).stem)
    return case.group(1) if case else row["id"]


def traced_box(lines: Sequence[Row], width: int, height: int) -> Box:
    """The box around one frame's tracing: the chords of a ventricle, cut at the frame's edges."""
    xs = [number_of(line, column, _TRACINGS) for line in lines for column in ("X1", "X2")]
    ys = [number_of(line, column, _TRACINGS) for line in lines for column in ("Y1", "Y2")]
    x1, y1 = max(floor(min(xs)), 0), max(floor(min(ys)), 0)
    return x1, y1, min(ceil(max(xs)), width), min(ceil(max(ys)), height)


def _traced_frames(source: Source, root: Path) -> Iterator[Record]:
    """Each frame in which experts traced the left ventricle: end of filling, end of emptying."""
    tracings: dict[str, dict[int, list[Row]]] = {}
    for line in read_table(root / _TRACINGS):
        frames = tracings.setdefault(line["FileName"].removesuffix(".avi"), {})
        frames.setdefault(int(number_of(line, "Frame", _TRACINGS)), []).append(line)
    for row in read_table(root / "FileList.csv"):
        name = row["FileName"].removesuffix(".avi")
        width, height = (int(number_of(row, f"Frame{side}", name)) for side in ("Width", "Height"))
        for frame, lines in sorted(tracings.get(name, {}).items()) or [(0, [])]:
            yield Record(
                record_id=f"{name}/{frame}",
                patient_id=name,
                answers=(_VENTRICLE,) if lines else (),
                images=(inside(root, f"Videos/{name}.avi", source.name),),
                frames=(frame,),
                boxes=(traced_box(lines, width, height),) if lines else (),
                split=as_split(row["Split"]),
            )


BUSI = Source(
    name="busi",
    domain="ultrasound",
    folder="ultrasound/busi/Dataset_BUSI_with_GT",
    license="CC0-1.0",
    options=("benign", "malignant", "normal"),
    readers=(FolderPerClass(mask="_mask"),),
)

_COVID_BLUES = Source(
    name="covid_blues",
    domain="ultrasound",
    folder="ultrasound/covid_blues",
    license="CC-BY-NC-ND-4.0",
    options=("COVID-19", "no COVID-19"),
    readers=(
        FolderTable(
            table="severity.csv",  # the one table with a line for every video
            file="lus_videos/{video_file}.mp4",
            joins=(
                Join(
                    "clinical_variables.csv",
                    "patient_id",
                    key=lambda row: row["video_file"].split("_")[1],
                    required=True,
                ),
            ),
            label="{cov_test}",
            labels={"0": "no COVID-19", "1": "COVID-19"},
            patient="{patient_id}",
            sex=lambda row: {"0.0": "F", "1.0": "M"}.get(row["pat_sex"], ""),
            age="{pat_age}",
        ),
    ),
)

_COVID_US = Source(
    name="covid_us",
    domain="ultrasound",
    folder="ultrasound/covid_us",
    license="AGPL-3.0-only",
    options=("COVID-19", "pneumonia", "normal"),
    missing="skip",  # the clips are fetched from websites, which take some down
    readers=(
        FolderTable(
            table="utils/video_metadata.csv",
            file="data/video/cropped/{id}_prc.avi",
            label=covid_us_label,
            labels={
                "COVID": "COVID-19",
                "Pneumonia": "pneumonia",
                "Normal": "normal",
                "Other": None,
                "": None,
            },
            patient=covid_us_patient,
        ),
    ),
)

_ECHONET = Source(
    name="echonet_dynamic",
    domain="ultrasound",
    folder="ultrasound/echonet_dynamic",
    license="Stanford University Dataset Research Use Agreement",
    task="grounding",
    options=(_VENTRICLE,),
    readers=(_traced_frames,),
)

SOURCES: tuple[Source, ...] = (BUSI, _COVID_BLUES, _COVID_US, _ECHONET)
"""The four ultrasound data sets, in the order of the paper's table."""
