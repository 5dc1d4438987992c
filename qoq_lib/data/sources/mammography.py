"""Mammography: VinDr-Mammo, CBIS-DDSM and CMMD."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset, dcmread

from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.source import Record, Source, Unreadable, as_age, inside
from qoq_lib.data.sources.tables import Join, Row, box_in, read_table

_BIRADS = tuple(f"BI-RADS {category}" for category in range(1, 6))


_VINDR_MAMMO = Source(
    name="vindr_mammo",
    domain="mammography",
    folder="mammography/vindr_mammo",
    license="PhysioNet Restricted Health Data License 1.5.0",
    options=_BIRADS,
    readers=(
        FolderTable(
            table="breast-level_annotations.csv",
            file="images/{study_id}/{image_id}.dicom",
            label="{breast_birads}",
            patient="{study_id}",  # patients are not named; the four views of a study stay together
            box=box_in("xmin", "ymin", "xmax", "ymax"),
            box_rows=Join("finding_annotations.csv", "image_id", "{image_id}"),
            split="{split}",
        ),
    ),
)


@dataclass(frozen=True)
class LargestInFolder:
    """A table whose masks are folders: of a folder's DICOM files the largest picture is the mask.

    The archive stores a lesion's mask and the cut-out around it in one series, in no fixed order;
    the mask has the size of the whole film.
    """

    table: FolderTable

    def __call__(self, source: Source, root: Path) -> Iterator[Record]:
        """Yield the table's records with a mask file in the place of each folder."""
        for record in self.table(source, root):
            yield replace(record, masks=tuple(map(self._mask, record.masks)))

    def _mask(self, folder: Path) -> Path:
        files = sorted(folder.glob("*.dcm"))
        headers = {file: header(file, "Rows", "Columns") for file in files}
        # A damaged header counts as the largest, so that assembly refuses the record by its name.
        unread = next((file for file in files if headers[file] is None), None)
        sizes = {file: one.Rows * one.Columns for file, one in headers.items() if one is not None}
        return unread or max(sizes, key=sizes.__getitem__, default=folder / "1-1.dcm")


def _series(column: str) -> Callable[[Row], str]:
    """The series in ``<subject>/<study>/<series>/<file>``, as the tables name a picture."""
    return lambda row: "".join(row[column].split("/")[2:3])


def _cbis(kind: str, split: str) -> LargestInFolder:
    return LargestInFolder(
        FolderTable(
            table=f"csv/{kind}_case_description_{split}_set.csv",
            joins=(
                Join("metadata.csv", "Series UID", _series("image file path"), "film ", True),
                Join("metadata.csv", "Series UID", _series("ROI mask file path"), "mask ", True),
            ),
            file="{film File Location}/1-1.dcm",
            label="{assessment}",
            # 0 asks for more images and is no assessment.
            labels={"0": None, **{name[-1]: name for name in _BIRADS}},
            highest=True,
            patient="{patient_id}",
            mask="{mask File Location}",
            split=split,
        )
    )


_CBIS_DDSM = Source(
    name="cbis_ddsm",
    domain="mammography",
    folder="mammography/cbis_ddsm",
    license="CC-BY-3.0",
    options=_BIRADS,
    readers=tuple(_cbis(kind, split) for kind in ("mass", "calc") for split in ("train", "test")),
)


@dataclass(frozen=True)
class Breasts:
    """CMMD: a spreadsheet line per breast, and per patient a folder with the films of both.

    Which breast a film shows stands in its DICOM header alone. A film that does not tell may show
    either, so that none of its patient's breasts can be used.
    """

    table: str
    films: str

    def __call__(self, source: Source, root: Path) -> Iterator[Record | Unreadable]:
        """Yield a record per line of the table, with the films of that breast."""
        for row in read_table(root / self.table):
            folder = inside(root, f"{self.films}/{row['ID1']}", f"{source.name}, {self.table}")
            yield self._breast(source, folder, row)

    def _breast(self, source: Source, folder: Path, row: Row) -> Record | Unreadable:
        side = row["LeftRight"]
        record_id = f"{row['ID1']}/{side}"
        shown = {film: _side(film) for film in sorted(folder.rglob("*.dcm"))}
        films = tuple(film for film in shown if shown[film] == side)
        untold = [film for film in shown if shown[film] is None]
        if untold:
            reason = f"The film {untold[0]} does not say which breast it shows: fetch it again."
            return Unreadable(record_id, reason)
        if not films:
            reason = f"{folder} has no film of side {side}: fetch it, or unlist the breast."
            return Unreadable(record_id, reason)
        answer = source.answer(row["classification"], _CMMD_CLASSES, f"{folder}, side {side}")
        answers = (answer,) if answer else ()
        return Record(record_id, row["ID1"], answers, films, age_years=as_age(row["Age"]))


_CMMD_CLASSES: dict[str, str | None] = {"Benign": "benign", "Malignant": "malignant"}

_CMMD = Source(
    name="cmmd",
    domain="mammography",
    folder="mammography/cmmd",
    license="CC-BY-4.0",
    options=("benign", "malignant"),
    readers=(Breasts("CMMD_clinicaldata_revision.xlsx", films="CMMD"),),
)


def header(file: Path, *tags: str) -> Dataset | None:
    """These tags of a DICOM file, without its pixels; ``None`` where they cannot be read."""
    try:
        found = dcmread(file, stop_before_pixels=True, specific_tags=list(tags))
    except Exception:  # a damaged file makes the parser raise whatever it trips over
        return None
    return found if all(tag in found for tag in tags) else None


def _side(film: Path) -> str | None:
    """``"L"`` or ``"R"``, ``None`` where the header cannot be read."""
    found = header(film, "ImageLaterality")
    return None if found is None else str(found.ImageLaterality)


SOURCES: tuple[Source, ...] = (_VINDR_MAMMO, _CBIS_DDSM, _CMMD)
"""In the order of the paper's table."""
