"""What a release would put on the Hub, file by file, settled before anything leaves the machine."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from huggingface_hub import metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from qoq_lib.publishing.policy import Verdict, datasets_in, datasets_with_media, judge, require
from qoq_lib.publishing.scan import check_clean
from qoq_lib.runs import OneSentenceError

RepoType = Literal["model", "dataset"]

CARD = "README.md"
_PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
_UNFINISHED = {".incomplete", ".lock", ".part", ".tmp"}
_GIT = {".git", ".gitattributes", ".gitignore"}
_CHUNK = 1 << 20


class PlanError(OneSentenceError, ValueError):
    """A folder cannot be released as it is; the message says which file and why."""


@dataclass(frozen=True)
class PlannedFile:
    """One file: its path in the repository, bytes, and its hashes, of which the Hub keeps one."""

    path: str
    size: int
    sha256: str
    git_sha1: str


@dataclass(frozen=True)
class Plan:
    """A release that could be published: where to, under which conditions, and every file.

    ``gated`` is true where the card asks readers to accept terms (``extra_gated_prompt``): the
    repository is then gated before the first file arrives. ``verdicts`` are the data cards' on the
    rows in it; ``card`` is the text of ``README.md``.
    """

    folder: Path
    repo_id: str
    repo_type: RepoType
    private: bool
    gated: bool
    verdicts: tuple[Verdict, ...]
    card: str
    files: tuple[PlannedFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def table(self) -> pd.DataFrame:
        """The exact files, one a row: path, bytes, SHA-256."""
        rows = [(file.path, file.size, file.sha256) for file in self.files]
        return pd.DataFrame(rows, columns=["file", "bytes", "sha256"])

    def _repr_markdown_(self) -> str:
        """The card as its page will show it, under its front matter."""
        _, front, body = self.card.split("---\n", 2)
        return f"**{self}**\n\n```yaml\n{front}```\n\n{body}"

    def __repr__(self) -> str:
        return f"{self}\n{self.card}"

    def __str__(self) -> str:
        access = "private" if self.private else "public"
        gate = "gated" if self.gated else "not gated"
        return (
            f"{self.repo_id} ({self.repo_type}, {access}, {gate}): {len(self.files)} files, "
            f"{self.size:,} bytes"
        )


def plan_release(
    folder: str | Path, repo_id: str, repo_type: RepoType, *, private: bool = True
) -> Plan:
    """Look at a finished folder and settle what its release would be; nothing is sent.

    Args:
        folder: holds the release, ``README.md`` included; the repository will mirror it.
        repo_id: ``owner/name`` on the Hub.
        repo_type: ``model`` or ``dataset``.
        private: who may see a repository that does not exist yet; for one that does, refuse to
            publish unless it is private.

    Raises:
        PlanError: no folder, no readable card, a file that must not leave or is unfinished.
        PolicyError: rows of a data set that may not leave, or not without a gate.
        ScanError: a file holds what looks like a secret or names a person.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PlanError(f"There is no folder {folder}: write the release first.")
    _check_name(repo_id)
    files = planned_files(folder)
    card, front = _read_card(folder)
    gated = bool(front.get("extra_gated_prompt"))
    _check_tables(folder)
    verdicts = judge(datasets_in(folder), "traces", gated=gated)
    require(verdicts)
    require(judge(datasets_with_media(folder), "images", gated=gated))
    check_clean(folder)
    return Plan(folder, repo_id, repo_type, private, gated, verdicts, card, files)


def planned_files(folder: Path) -> tuple[PlannedFile, ...]:
    """Every file below ``folder`` with its hashes; ``PlanError`` at one that must not leave."""
    return tuple(_planned(path, folder) for path in _files(folder))


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PlanError(f"The name {repo_id!r} cannot be on the Hub: {error}") from error
    if "/" not in repo_id:
        raise PlanError(f"The name {repo_id!r} lacks its owner: give it as 'owner/name'.")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_symlink():
            raise PlanError(f"{inside} is a link: copy the file into the release instead.")
        if path.is_dir():
            continue
        if _GIT & set(inside.parts):
            raise PlanError(f"{inside} belongs to git, not to a release: remove it.")
        if path.suffix in _UNFINISHED:
            raise PlanError(f"{inside} is an unfinished file: write the release again.")
        if path.suffix in _PICKLES:
            raise PlanError(f"{inside} can run code when opened: release safetensors only.")
        yield path


def _check_tables(folder: Path) -> None:
    for path in sorted(folder.rglob("*.parquet")):
        try:
            pq.read_schema(path)
        except pa.ArrowInvalid as error:
            raise PlanError(
                f"{path.relative_to(folder)} is no complete parquet file: write the release again."
            ) from error


def _planned(path: Path, folder: Path) -> PlannedFile:
    """The file with both hashes, read once."""
    size = path.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)  # git's header of a file
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            sha1.update(chunk)
    name = str(PurePosixPath(path.relative_to(folder)))
    return PlannedFile(name, size, sha256.hexdigest(), sha1.hexdigest())


def _read_card(folder: Path) -> tuple[str, dict[str, Any]]:
    path = folder / CARD
    try:
        text = path.read_text(encoding="utf-8")
        front = metadata_load(path)
    except FileNotFoundError as error:
        raise PlanError(f"{path} is missing: a release needs its card.") from error
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PlanError(f"The front matter of {path} is not readable: {reason}.") from error
    if not front:
        raise PlanError(f"{path} begins with no front matter: write the card again.")
    return text, front
