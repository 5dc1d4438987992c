"""The general reader of a folder per class: the name of the folder is the label."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from qoq_lib.data.readers import IMAGE_SUFFIXES, suffix_of
from qoq_lib.data.sources.source import Record, Source, SourceError, as_split


@dataclass(frozen=True)
class FolderPerClass:
    """``<class>/<file>``, at any depth; for ECGs the files are the WFDB headers.

    ``labels`` maps folder names to answers (``None``: leave that folder out); without it they are
    the same. A first folder named like a split (``Training/<class>/<file>``) gives the official
    split. ``patient`` is a pattern whose first group, searched in the path, names the patient;
    without it, or where it does not match, each file is its own patient.

    ``files`` is a pattern of paths that narrows the tree to some of its folders, and ``split`` the
    official split of what is found. With ``mask``, an ending such as ``"_mask"``, the files
    ``<stem>_mask`` and ``<stem>_mask_<number>`` are the masks of ``<stem>``, and every image has
    one.

    A class without a file is an error, but in a declared subset: without a table nothing else tells
    that a part of the data set is missing.
    """

    labels: Mapping[str, str | None] | None = None
    patient: str | None = None
    files: str = "*/**/*"
    split: str = ""
    mask: str = ""

    def __call__(self, source: Source, root: Path) -> Iterator[Record]:
        """Yield the records of ``source`` under ``root`` in the order of their paths."""
        files = class_files(root, source.domain, self.files)
        self._check_classes(source, root, files)
        masks = self._masks(files)
        taken = set(chain.from_iterable(masks.values()))
        for file in sorted({*masks, *files} - taken):
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
                masks=self._masks_of(file, masks),
                split=as_split(self.split or file.relative_to(root).parts[0]),
            )

    def _check_classes(self, source: Source, root: Path, files: Sequence[Path]) -> None:
        labels = self.labels or dict.fromkeys(source.options, "")
        wanted = {folder for folder, answer in labels.items() if answer is not None}
        lacking = sorted(wanted - {file.parent.name for file in files})
        if lacking and source.missing == "refuse":
            raise SourceError(
                f"{source.name}: no file of the class folder {lacking[0]!r} is below {root} "
                f"({self.files}): it is missing, fetch it."
            )

    def _masks(self, files: Sequence[Path]) -> dict[Path, list[Path]]:
        """The masks among ``files`` by the image they belong to, which may be missing."""
        masks: dict[Path, list[Path]] = defaultdict(list)
        for file in files if self.mask else ():
            if match := re.fullmatch(rf"(.+){self.mask}(_\d+)?", file.stem):
                masks[file.with_stem(match.group(1))].append(file)
        return masks

    def _masks_of(self, image: Path, masks: Mapping[Path, list[Path]]) -> tuple[Path, ...]:
        if not self.mask:
            return ()
        return tuple(masks.get(image, ())) or (image.with_stem(image.stem + self.mask),)


def class_files(root: Path, domain: str, pattern: str = "*/**/*") -> list[Path]:
    """The files of a folder-per-class tree, sorted: ECG headers or images, by ``domain``."""
    suffixes = {".hea"} if domain == "ecg" else IMAGE_SUFFIXES
    return sorted(file for file in root.glob(pattern) if suffix_of(file) in suffixes)
