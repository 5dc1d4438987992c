"""The reader of ECG folders whose labels stand in the WFDB headers as ``# Dx:`` codes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qoq_lib.data.sources.source import Record, Source, Unreadable, as_age, as_sex, unique

_SUFFIXES = frozenset((".hea", ".mat", ".dat"))


@dataclass(frozen=True)
class WfdbHeader:
    """Every record below the root; the ``Dx`` comment of its header lists codes, several of them.

    ``codes`` maps codes to answers; a code outside it is ``other``, or not asked for where that is
    ``None``, and a record with no code left has no usable label. ``implied`` maps an answer to
    those that make it redundant: it is dropped where one of them applies. One record is one
    patient. A record without a header, or whose header states no codes, is refused by name.
    """

    codes: Mapping[str, str]
    implied: Mapping[str, frozenset[str]]
    other: str | None = None

    def __call__(self, source: Source, root: Path) -> Iterator[Record | Unreadable]:
        """Yield the records of ``source`` in the order of their paths."""
        files = (file for file in root.rglob("*") if file.suffix in _SUFFIXES)
        for stem in sorted({file.with_suffix("") for file in files}):
            yield self._record(stem.with_suffix(".hea"), stem.relative_to(root).as_posix())

    def _record(self, header: Path, name: str) -> Record | Unreadable:
        if not header.is_file():
            return Unreadable(name, f"The ECG header {header} is missing: fetch it again.")
        comments = header_comments(header)
        if not comments.get("dx"):
            return Unreadable(
                name, f"The ECG header {header} has no '# Dx:' line with codes: fetch it again."
            )
        return Record(
            record_id=name,
            patient_id=name,
            answers=self._answers(comments["dx"]),
            ecg=header,
            sex=as_sex(comments.get("sex", "")),
            age_years=as_age(comments.get("age", "")),
        )

    def _answers(self, dx: str) -> tuple[str, ...]:
        codes = [code.strip() for code in dx.split(",") if code.strip().isdigit()]
        named = (self.codes.get(code, self.other) for code in codes)
        found = unique(answer for answer in named if answer is not None)
        return tuple(one for one in found if not self.implied.get(one, frozenset()) & set(found))


def header_comments(header: Path) -> dict[str, str]:
    """The ``# Key: value`` lines of a WFDB header, keys in lower case."""
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.lstrip("# ").partition(":") for line in lines if line.startswith("#"))
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
