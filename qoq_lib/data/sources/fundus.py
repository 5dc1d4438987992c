"""The fundus photographs of the paper: APTOS 2019, Messidor-2 and Jichi.

The first two grade retinopathy on the international scale of five, Jichi on Davis' scale of four,
which has no grade "mild" or "severe": its own names are kept and the scales never joined.
"""

from collections.abc import Iterator
from pathlib import Path

from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.source import Record, Source
from qoq_lib.data.sources.tables import Row, read_table

_GRADES = {
    "0": "no retinopathy",
    "1": "mild retinopathy",
    "2": "moderate retinopathy",
    "3": "severe retinopathy",
    "4": "proliferative retinopathy",
}


def _messidor2(source: Source, root: Path) -> Iterator[Record]:
    """The graded photographs; the owner's list of pairs says which two are of one examination.

    Grades and photographs come from two owners, who write the endings of names in different cases.
    """
    pairs = [next(iter(row.values())).lower() for row in read_table(root / "messidor-2.csv")]
    examination = {name.strip(): pair for pair in pairs for name in pair.split(";")}
    on_disk = {path.name.lower(): path.name for path in (root / "IMAGES").glob("*")}

    def file(row: Row) -> str:
        return f"IMAGES/{on_disk.get(row['image_id'].lower(), row['image_id'])}"

    def patient(row: Row) -> str:
        return examination.get(row["image_id"].lower(), "")

    # A photograph that could not be graded has an empty cell; the copies of the table write
    # whole numbers now as "1", now as "1.0".
    grades = {f"{key}{end}": grade for key, grade in _GRADES.items() for end in ("", ".0")}
    yield from FolderTable(
        table="messidor_data.csv",
        file=file,
        label="{adjudicated_dr_grade}",
        labels={**grades, "": None},
        patient=patient,
    )(source, root)


_APTOS = Source(
    name="aptos2019",
    domain="fundus",
    folder="fundus/aptos2019",
    license="Kaggle competition rules",
    options=tuple(_GRADES.values()),
    readers=(
        FolderTable(
            table="train.csv",
            file="train_images/{id_code}.png",
            label="{diagnosis}",
            labels=_GRADES,
        ),
    ),
)

_MESSIDOR = Source(
    name="messidor2",
    domain="fundus",
    folder="fundus/messidor2",
    license=("images: research and education only, no redistribution (owner); grades: CC0-1.0"),
    options=tuple(_GRADES.values()),
    readers=(_messidor2,),
)

_JICHI = Source(
    name="jichi",
    domain="fundus",
    folder="fundus/jichi",
    license="CC-BY-4.0",
    options=(
        "no retinopathy",
        "simple retinopathy",
        "pre-proliferative retinopathy",
        "proliferative retinopathy",
    ),
    readers=(
        FolderTable(
            table="list.csv",
            file="**/{Image}",  # the deposit does not say in which folder
            label="{Davis_grading_of_one_figure}",
            labels={
                "ndr": "no retinopathy",
                "sdr": "simple retinopathy",
                "ppdr": "pre-proliferative retinopathy",
                "pdr": "proliferative retinopathy",
            },
            # "<patient>_<number>_<L or R>.jpg": up to four years of the same two eyes.
            patient=lambda row: row["Image"].split("_")[0],
        ),
    ),
)

SOURCES: tuple[Source, ...] = (_APTOS, _MESSIDOR, _JICHI)
"""The three fundus data sets, in the order of the paper's table."""
