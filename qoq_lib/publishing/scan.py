"""The last look at what is about to leave: secrets, home paths, and whatever names a person.

``scan`` opens every file of a folder: words in text files, notebooks and the text columns of
parquet files, EXIF and comments of images, headers of DICOM files, also those inside parquet. It
stands behind the release policy and the de-identification of the sources and replaces neither.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qoq_lib.publishing.media_scan import is_media, media_findings, media_words
from qoq_lib.runs import OneSentenceError

_EDGE, _END = r"(?:^|[^0-9A-Za-z.\-_])", r"(?:$|[^0-9A-Za-z\-_])"
_DATE = (
    r"(?:\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{8}|\d{1,2}\.? [A-Z][a-z]+ \d{4}"
    r"|[A-Z][a-z]+ \d{1,2},? \d{4})"
)
_IS = r"[\"']?(?: is| was)?\s{0,3}[:=#]?\s{0,3}[\"']?"

# Written so that both Python's re and RE2 (in pyarrow, on whole columns) read them alike.
PATTERNS = {
    "token or secret": (
        r"\bhf_[A-Za-z0-9]{20,}|\bgh[opsur]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}"
        r"|\bsk-[A-Za-z0-9_\-]{24,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bxox[abprs]-[A-Za-z0-9\-]{10,}"
        r"|\bAIza[0-9A-Za-z_\-]{35}|-----BEGIN [A-Z ]*PRIVATE KEY|\beyJ[\w\-]{15,}\.eyJ[\w\-]{15,}"
        r"|(?i:\b(?:api_?key|secret|password|passwd|auth_?token)[\"']?\s{0,2}[:=]\s{0,2}"
        r"[\"'][^\"'\s]{8,}[\"'])"
    ),
    "home path": r"/(?:home|Users)/[A-Za-z0-9]|/root/|\b[A-Z]:\\{1,2}Users\\{1,2}[A-Za-z0-9]",
    "e-mail address": r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9][A-Za-z0-9\-]*(?:\.[A-Za-z0-9\-]+)*"
    r"\.[A-Za-z]{2,10}\b",
    "phone number": (
        rf"{_EDGE}(?:\(\d{{3}}\) ?\d{{3}}[ \-.]\d{{4}}|\d{{3}}-\d{{3}}-\d{{4}}"
        rf"|\d{{3}}\.\d{{3}}\.\d{{4}}){_END}"
        rf"|{_EDGE}\+\d{{1,3}}[ \-]\(?\d{{1,4}}\)?(?:[ \-]\d{{2,4}}){{2,}}"
        r"|(?i:\b(?:phone|telephone|tel|fax|mobile)\b\.?" + _IS + r"\+?\(?\d[\d ()./\-]{6,})"
    ),
    "date of birth": r"(?i:\b(?:date of birth|birth ?date|d\.o\.b\.?|dob|born(?: on)?)" + _IS + ")"
    rf"{_DATE}",
    "record number of a person": (
        r"(?i:\b(?:mrn|medical record(?: number| no\.?)?|patient(?: id| identifier| number| no\.?)"
        r"|hospital (?:number|no\.?)|nhs(?: number| no\.?)|accession(?: number| no\.?)?"
        r"|social security(?: number)?|ssn)" + _IS + r"[A-Z]{0,4}[ \-]?\d[\d \-]{3,}\d)"
        rf"|{_EDGE}\d{{3}}-\d{{2}}-\d{{4}}{_END}"
    ),
    "DICOM patient tag": (
        r"\bPatient(?:'s )?(?:Name|BirthDate|Birth Date|Address|ID)[\"']?\s{0,2}[:=]\s{0,2}"
        r"[\"']?[A-Za-z0-9]"
        r"|\(0010, ?00[1-4]0\)"
    ),
}
"""By what it finds."""

_ANY = "|".join(f"(?:{pattern})" for pattern in PATTERNS.values())
_ONE = {kind: re.compile(pattern) for kind, pattern in PATTERNS.items()}
_PERSONAL_COLUMNS = re.compile(
    r"(?i)^(patient|subject|mrn|name|first_?name|last_?name|birth|dob|address|phone|e?mail)"
    r"(_?(id|name|date|birth_?date|number))?$"
)
# The words of a published base model, from all over the web: no person's.
_VOCABULARIES = frozenset(("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"))
_WEIGHTS = frozenset((".safetensors", ".gguf"))
_HEADER_BYTES = 2**24  # of weights: names of tensors and the file's own words
_SHOWN = 5
_BATCH = 4096


@dataclass(frozen=True)
class Finding:
    """Something that should not leave: the file, the place in it, and what kind of thing it is.

    ``excerpt`` shows its ends only, so that a printed finding gives nothing away.
    """

    file: str
    where: str
    kind: str
    excerpt: str


class ScanError(OneSentenceError, RuntimeError):
    """What is about to leave holds something that must not; ``findings`` is all of it."""

    def __init__(self, findings: list[Finding]) -> None:
        first = findings[0]
        super().__init__(
            f"{first.file} holds what looks like a {first.kind} ({first.where}: {first.excerpt}), "
            f"{len(findings)} such places in all: take them out, nothing was released."
        )
        self.findings = findings


def check_clean(folder: Path) -> None:
    """Raise ``ScanError`` where ``scan`` finds anything."""
    if findings := scan(folder):
        raise ScanError(findings)


def scan(folder: Path) -> list[Finding]:
    """All findings in the files below ``folder``, the first five of a kind in a column or file."""
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [one for path in files for one in _of_file(path, path.relative_to(root).as_posix())]


def findings_table(findings: list[Finding]) -> pd.DataFrame:
    """A row per finding."""
    return pd.DataFrame([vars(one) for one in findings], columns=list(Finding.__annotations__))


def suspicious(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which of the texts have something that ``PATTERNS`` match; a null has not."""
    return pc.fill_null(pc.match_substring_regex(texts, _ANY), False)


def _of_file(path: Path, name: str) -> list[Finding]:
    if path.suffix == ".parquet":
        return _of_parquet(path, name)
    with path.open("rb") as stream:
        start = stream.read(_HEADER_BYTES) if path.suffix in _WEIGHTS else stream.read(132)
        if path.suffix not in _WEIGHTS:
            start += stream.read()
    if is_media(start):
        return _of_media([start], name, "the file")
    if path.name in _VOCABULARIES:
        return []
    lines = pa.chunked_array([start.decode("utf-8", "replace").splitlines()], pa.string())
    return _of_texts(lines.filter(suspicious(lines)).to_pylist(), name, "the text")


def _of_parquet(path: Path, name: str) -> list[Finding]:
    file = pq.ParquetFile(path)
    columns = [column for column in file.schema_arrow.names if _PERSONAL_COLUMNS.match(column)]
    found = [Finding(name, f"column {column}", "column of a person", "") for column in columns]
    for batch in file.iter_batches(_BATCH):
        for column in batch.schema.names:
            for leaf in _leaves(batch.column(column)):
                found += _of_leaf(leaf, name, f"column {column}")
    return _first_of_each(found)


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    """The flat arrays inside a column of lists and structures."""
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _leaves(array.flatten())
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from _leaves(part)
    else:
        yield array


def _of_leaf(leaf: pa.Array, name: str, where: str) -> list[Finding]:
    if pa.types.is_string(leaf.type) or pa.types.is_large_string(leaf.type):
        texts = pc.unique(leaf)
        return _of_texts(texts.filter(suspicious(texts)).to_pylist(), name, where)
    if pa.types.is_binary(leaf.type) or pa.types.is_large_binary(leaf.type):
        return _of_media((data for data in leaf.to_pylist() if data), name, where)
    return []


def _of_media(files: Iterable[bytes], name: str, where: str) -> list[Finding]:
    found = []
    for data in files:
        found += [Finding(name, where, kind, says) for kind, says in media_findings(data)]
        found += _of_texts([media_words(data)], name, where)
    return _first_of_each(found)


def _of_texts(texts: Iterable[str], name: str, where: str) -> list[Finding]:
    found = [
        Finding(name, where, kind, _masked(match.group()))
        for text in texts
        for kind, pattern in _ONE.items()
        for match in pattern.finditer(text)
    ]
    return _first_of_each(found)


def _masked(text: str) -> str:
    text = text.strip()
    return f"{text[:4]}…{text[-2:]}" if len(text) > 8 else f"{text[:2]}…"


def _first_of_each(found: list[Finding]) -> list[Finding]:
    kept: dict[tuple[str, str], list[Finding]] = {}
    for one in found:
        kept.setdefault((one.where, one.kind), []).append(one)
    return [one for group in kept.values() for one in group[:_SHOWN]]
