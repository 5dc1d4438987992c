"""What is to be fetched: an address, its place and its checksum."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Unpack:
    """What becomes of an archive: into which folder, without how many leading folders of its own.

    ``nested`` is a pattern of archives inside it that are unpacked in their place, without their
    first folder.
    """

    into: str = "."
    strip: int = 0
    nested: str = ""


@dataclass(frozen=True)
class RemoteFile:
    """An address, its place below the source's folder, and ``algorithm:hex`` where published."""

    url: str
    path: str
    checksum: str | None = None
    unpack: Unpack | None = None


def shown(url: str) -> str:
    """``url`` as it may be shown and kept: without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return urlunsplit(
        (parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", "")
    )


def digest(path: Path, expected: str | None) -> tuple[str, bool]:
    """The SHA-256 of a file, and whether it has the checksum ``expected`` (``algorithm:hex``)."""
    algorithm, _, wanted = (expected or "sha256:").partition(":")
    sha256, other = hashlib.sha256(), hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            if algorithm != "sha256":
                other.update(chunk)
    found = sha256.hexdigest() if algorithm == "sha256" else other.hexdigest()
    return sha256.hexdigest(), not wanted or found == wanted.lower()
