"""The general reader of a folder per class: the name of the folder is the label."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qoq_lib.data.readers import IMAGE_SUFFIXES, suffix_of
from qoq_lib.data.sources.source import Record, Source, as_split


@dataclass(frozen=True)
class FolderPerClass:
    """``<class>/<file>``, at any depth; for ECGs the files are the WFDB headers.

    ``labels`` maps folder names to answers (``None``: leave that folder out); without it they are
    the same. A first folder named like a split (``Training/<class>/<file>``) gives the official
    split. ``patient`` is a pattern whose first group, searched in the path, names the patient;
    without it, or where it does not match, each file is its own patient.

    ``files`` is a pattern of paths that narrows the tree to some of its folders, and ``split`` the
    official split of what is found.
    """

    labels: Mapping[str, str | None] | None = None
    patient: str | None = None
    files: str = "*/**/*"
    split: str = ""

    def __call__(self, source: Source, root: Path) -> Iterator[Record]:
        """Yield the records of ``source`` under ``root`` in the order of their paths."""
        for file in class_files(root, source.domain, self.files):
            name = file.relative_to(root).as_posix()
            answer = source.answer(file.parent.name, self.labels, str(file))
            match = re.search(self.patient, name) if self.patient else None
            is_ecg = source.domain == "ecg"
            yield Record(
                record_id=name,
                patient_id=match.group(1) if match else name,
                answers=(answer,) if answer is not None else (),
                images=() if is_ecg else (file,),
                ecg=file if is_ecg else None,
                split=as_split(self.split or file.relative_to(root).parts[0]),
            )


def class_files(root: Path, domain: str, pattern: str = "*/**/*") -> list[Path]:
    """The files of a folder-per-class tree, sorted: ECG headers or images, by ``domain``."""
    suffixes = {".hea"} if domain == "ecg" else IMAGE_SUFFIXES
    return sorted(file for file in root.glob(pattern) if suffix_of(file) in suffixes)
