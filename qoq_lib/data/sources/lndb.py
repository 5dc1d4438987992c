"""The reader of LNDb: windows of slices of a chest CT, with or without a nodule."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qoq_lib.data.frames import FRAMES
from qoq_lib.data.sources.source import Record, Source, Unreadable, inside
from qoq_lib.data.sources.tables import Row, number_of, read_table

SLICES, STRIDE = 24, 12
"""A window's slices, and the slices from the start of one window to that of the next."""

_STEP = SLICES // FRAMES
_SEGMENTED_MM = 3.0
_TABLE = "trainNodules.csv"


@dataclass(frozen=True)
class _Nodule:
    """One radiologist's mark: centre and half of its height, in slices; diameter in mm."""

    centre: float
    half: float
    diameter: float
    radiologist: str

    def touches(self, start: int, end: int) -> bool:
        return self.centre + self.half >= start and self.centre - self.half <= end - 1

    def is_inside(self, start: int, end: int) -> bool:
        return start <= round(self.centre) < end


@dataclass(frozen=True)
class _Axis:
    """The slices of a volume, from the feet up: their number, the lowest one and their distance."""

    count: int
    lowest_mm: float
    spacing_mm: float


def nodule_windows(source: Source, root: Path) -> Iterator[Record | Unreadable]:
    """The windows of 24 slices, 12 apart, of every scan in ``trainNodules.csv``.

    A window has a nodule where the middle of one lies in it that any radiologist marked, of any
    size; where a nodule only reaches into a window, the window has no usable label. Scans outside
    the table were not annotated for everybody to see and are left out.

    Four slices are shown, six apart. With a nodule they go through the middle of the largest one,
    else they start at one of the six places that the window's name draws: where they lie tells
    nothing. Nodules of 3 mm and more have masks, one file per radiologist.
    """
    scans: dict[int, list[Row]] = {}
    where = f"{source.name}, table {_TABLE}"
    for row in read_table(root / _TABLE):
        scans.setdefault(int(number_of(row, "LNDbID", where)), []).append(row)
    for number, rows in sorted(scans.items()):
        name = f"LNDb-{number:04d}"
        volume = inside(root, f"data/{name}.mhd", source.name)
        try:
            axis = _axis(volume)
        except (OSError, KeyError, ValueError, IndexError) as error:
            yield Unreadable(
                name,
                f"The header {volume} cannot be read ({error}): fetch it again, or unlist it.",
            )
            continue
        nodules = [_nodule(row, axis, where) for row in rows if row["Nodule"] == "1"]
        for start in range(0, max(axis.count - SLICES, 0) + 1, STRIDE):
            end = min(start + SLICES, axis.count)
            yield _window(root, name, (start, end), nodules)


def _window(root: Path, name: str, span: tuple[int, int], nodules: Sequence[_Nodule]) -> Record:
    within = [nodule for nodule in nodules if nodule.is_inside(*span)]
    near = [nodule for nodule in nodules if nodule.touches(*span)]
    record_id = f"{name}/{span[0]:03d}"
    if within:
        answers: tuple[str, ...] = ("nodule",)
        through = round(max(within, key=lambda nodule: nodule.diameter).centre)
    else:
        answers = () if near else ("no nodule",)
        through = span[0] + random.Random(record_id).randrange(_STEP)
    readers = {nodule.radiologist for nodule in near if nodule.diameter >= _SEGMENTED_MM}
    return Record(
        record_id=record_id,
        patient_id=name,
        answers=answers,
        images=(root / "data" / f"{name}.mhd",),
        frames=tuple(range(span[0] + (through - span[0]) % _STEP, span[1], _STEP)),
        masks=tuple(root / "masks" / f"{name}_rad{reader}.mhd" for reader in sorted(readers)),
    )


def _nodule(row: Row, axis: _Axis, where: str) -> _Nodule:
    diameter = 2 * (3 * number_of(row, "Volume", where) / (4 * math.pi)) ** (1 / 3)
    return _Nodule(
        centre=(number_of(row, "z", where) - axis.lowest_mm) / axis.spacing_mm,
        half=diameter / 2 / axis.spacing_mm,
        diameter=diameter,
        radiologist=row["RadID"],
    )


def _axis(volume: Path) -> _Axis:
    """The third axis of a MetaImage by its header; ``ValueError`` unless it is the body's."""
    lines = (line.partition("=") for line in volume.read_text(encoding="latin-1").splitlines())
    header = {key.strip(): value.split() for key, _, value in lines}
    upwards = float(header.get("TransformMatrix", ["1"])[-1])
    if abs(upwards) != 1:
        raise ValueError("its slices are tilted")
    count, spacing = int(header["DimSize"][2]), float(header["ElementSpacing"][2])
    first = float(header["Offset"][2])
    return _Axis(count, first if upwards > 0 else first - (count - 1) * spacing, spacing)
