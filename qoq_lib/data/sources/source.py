"""What a source of clinical data is: a declaration, and readers that list its records.

A reader walks a folder or a table and yields one ``Record`` per case, without opening any image or
signal. Opening, refusing and splitting are the same for all sources and live in ``assemble.py``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from qoq_lib.answers import read_answer
from qoq_lib.data.frames import Window
from qoq_lib.data.prompts import Task, boxed
from qoq_lib.data.readers import Crop
from qoq_lib.domains import DOMAINS
from qoq_lib.runs import OneSentenceError

Box = tuple[float, float, float, float]
"""``x1, y1, x2, y2`` in pixels of the original image, origin top left, x2 and y2 exclusive."""

Reader = Callable[["Source", Path], Iterator["Record | Unreadable"]]
"""From a source and its root folder to its records."""

Split = Literal["train", "validation", "test"]

_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
_SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validate": "validation",
    "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


class SourceError(OneSentenceError, ValueError):
    """A source's folder, table or labels are not as declared; the message names file and label."""


@dataclass(frozen=True, slots=True)
class Record:
    """One case as its source states it; paths are absolute and may not exist.

    ``record_id`` is unique inside the source. Empty ``answers`` mean: listed, but by declaration
    without a usable label. ``split`` is the source's official one, ``None`` where it has none.

    ``frames`` are the slices of a volume, or the frames of a video, that are shown, counted from 0;
    none mean that the reader spreads them evenly: over what a mask volume marks, else over all.
    ``crop`` is the part of image and mask that is meant, ``None`` for all of them. The lesion is
    where a mask holds one of ``mask_values``; without them a mask is two-valued. Mask and boxes are
    what lies in any of the frames shown.
    """

    record_id: str
    patient_id: str
    answers: tuple[str, ...]
    images: tuple[Path, ...] = ()
    ecg: Path | None = None
    frames: tuple[int, ...] = ()
    crop: Crop | None = None
    masks: tuple[Path, ...] = ()
    mask_values: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()
    report: str | None = None
    sex: str | None = None
    age_years: float | None = None
    split: Split | None = None
    license: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file the case needs; of an ECG, its header."""
        return (*self.images, *self.masks, *([self.ecg] if self.ecg else []))


@dataclass(frozen=True)
class Unreadable:
    """A case that cannot even be listed, because the file with its labels is missing or damaged.

    A reader yields it in the place of a ``Record``; it is refused by name, for ``reason``.
    """

    record_id: str
    reason: str
    files: ClassVar[tuple[Path, ...]] = ()  # none of it is read


@dataclass(frozen=True)
class Source:
    """One data set: what it is called, what may be answered, and how its folder is read.

    ``folder`` lies below the data root. ``missing="skip"`` declares that the tables list more than
    the folder holds (a subset of the data set): such records are counted, not refused. ``task`` is
    what is asked. ``cohort`` names the hospital register its patients are numbered in, where
    several sources share one (a patient is then on one side in all of them). ``window`` is the
    level and the width, in Hounsfield units, in which CT slices are shown in grey. ``parts`` are
    several downloads that are read as one: the name of each, and its folder below the data root,
    which may be a link.
    """

    name: str
    domain: str
    license: str
    options: tuple[str, ...]
    readers: tuple[Reader, ...]
    folder: str = "."
    task: Task = "diagnosis"
    cohort: str = ""
    missing: Literal["refuse", "skip"] = "refuse"
    window: Window | None = None
    parts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a declaration that no row could satisfy."""
        if self.domain not in DOMAINS:
            raise SourceError(
                f"Source {self.name!r}: unknown domain {self.domain!r}; use one of "
                f"{', '.join(DOMAINS)}."
            )
        grounding = self.task == "grounding"  # what is asked is where, and one label will do
        if len(self.options) < 2 - grounding or len(set(self.options)) != len(self.options):
            raise SourceError(
                f"Source {self.name!r} needs at least two different labels, got "
                f"{list(self.options)}."
            )
        for option in self.options:
            others = [other for other in self.options if other != option]
            answer = boxed([option])
            if (
                "\n" in option
                or read_answer(answer, self.options).labels != (option,)
                or read_answer(answer, others).valid
            ):
                raise SourceError(
                    f"Source {self.name!r}: the label {option!r} cannot be told from other answers "
                    "in \\boxed{}: rename it, without line breaks or braces."
                )

    def records(self, data_root: Path) -> Iterator[Record | Unreadable]:
        """Its records below ``data_root``, in a fixed order; ``SourceError`` if not as declared.

        A file that a link takes out of the folder is not as declared; the folder may be a link.
        """
        root = Path(data_root) / self.folder
        if not root.is_dir():
            raise SourceError(f"The folder of {self.name}, {root}, is missing: check data_root.")
        parts = (Path(data_root) / part for part in self.parts.values())
        homes = [home.resolve() for home in (root, *parts)]
        real_folder = cache(Path.resolve)  # most files share few folders
        for record in chain.from_iterable(reader(self, root) for reader in self.readers):
            for file in record.files:
                real = file.resolve() if file.is_symlink() else real_folder(file.parent)
                if not any(map(real.is_relative_to, homes)):
                    raise SourceError(
                        f"{file} of {self.name} is a link out of its folder, to {real}: copy the "
                        "files there."
                    )
            yield record

    def patient(self, record: Record) -> str:
        """The patient of ``record``, under a name that is unique over all sources."""
        return f"{self.cohort or self.name}/{record.patient_id}"

    def answer(self, label: str, labels: Mapping[str, str | None] | None, where: str) -> str | None:
        """The answer that ``label`` stands for, ``None`` where it is declared unusable.

        ``labels`` maps what the source writes to answers; without it they are the same. ``where``
        names the file in the ``SourceError`` about a label that is neither.
        """
        known = {option: option for option in self.options} if labels is None else labels
        if label not in known:
            raise SourceError(
                f"{where}: the label {label!r} is not in the label set of {self.name} "
                f"({', '.join(map(repr, known))}): correct the label or declare it."
            )
        return known[label]


def inside(root: Path, relative: str, where: str) -> Path:
    """``root / relative``; ``SourceError`` where a table points out of its own folder."""
    path = PurePosixPath(relative.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise SourceError(f"{where} points out of its folder ({relative!r}): use paths inside it.")
    return root / path


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """``values`` without repeats, in order of first appearance."""
    return tuple(dict.fromkeys(values))


def as_sex(text: str) -> str | None:
    """``"F"``, ``"M"``, or ``None`` for anything else."""
    return _SEXES.get(text.strip().lower())


def as_age(text: str) -> float | None:
    """Age in years, ``None`` where it is not a number from 0 to 120."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age <= 120 else None


def as_split(text: str) -> Split | None:
    """The split that a folder or cell such as ``Training`` or ``val`` stands for, else ``None``."""
    return _SPLITS.get(text.strip().lower())  # type: ignore[return-value]
