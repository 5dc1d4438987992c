"""The reader of ECG folders whose labels stand in the WFDB headers as ``# Dx:`` codes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qoq_lib.data.sources.source import Record, Source, SourceError, as_age, as_sex, unique


@dataclass(frozen=True)
class WfdbHeader:
    """Every ``.hea`` below the root; its ``Dx`` comment lists SNOMED codes, several per record.

    ``codes`` maps codes to answers; codes outside it are findings that are not asked for, and a
    record with no code in it has no usable label. ``implied`` maps an answer to those that make it
    redundant: it is dropped where one of them applies. One record is one patient.
    """

    codes: Mapping[str, str]
    implied: Mapping[str, frozenset[str]]

    def __call__(self, source: Source, root: Path) -> Iterator[Record]:
        """Yield the records of ``source`` in the order of their paths."""
        for header in sorted(root.rglob("*.hea")):
            comments = header_comments(header)
            name = header.relative_to(root).with_suffix("").as_posix()
            yield Record(
                record_id=name,
                patient_id=name,
                answers=self._answers(comments, header),
                ecg=header,
                sex=as_sex(comments.get("sex", "")),
                age_years=as_age(comments.get("age", "")),
            )

    def _answers(self, comments: Mapping[str, str], header: Path) -> tuple[str, ...]:
        if "dx" not in comments:
            raise SourceError(f"The ECG header {header} has no '# Dx:' line: add its codes.")
        codes = (code.strip() for code in comments["dx"].split(","))
        found = unique(self.codes[code] for code in codes if code in self.codes)
        return tuple(one for one in found if not self.implied.get(one, frozenset()) & set(found))


def header_comments(header: Path) -> dict[str, str]:
    """The ``# Key: value`` lines of a WFDB header, keys in lower case."""
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.lstrip("# ").partition(":") for line in lines if line.startswith("#"))
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
