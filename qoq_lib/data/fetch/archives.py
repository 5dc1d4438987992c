"""Archives of strangers: every member is looked at before the first one is written.

Only plain files inside the target folder are unpacked. A path that leads out of it, a link, a
device, a name that stands there twice, an encrypted member and an archive that swells beyond
measure are refused, and then nothing at all is written.
"""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from qoq_lib.data.fetch.errors import FetchError

MOST_MEMBERS = 5_000_000
MOST_SWELLING = 200
"""How many bytes may come out of one byte of an archive..."""
ALWAYS_ALLOWED_BYTES = 1 << 30
"""...beyond what even a small archive may hold."""

_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # zipfile's word for an unknown compression
    UnicodeDecodeError,
)


class ArchiveError(FetchError):
    """An archive is damaged, or holds what must not be unpacked; the message names the member."""


@dataclass(frozen=True)
class _Member:
    name: str
    bytes: int
    kind: str  # "file" | "folder" | any other: what it is in words
    handle: zipfile.ZipInfo | tarfile.TarInfo


def is_archive(path: str) -> bool:
    """Whether ``unpack`` can read an archive of that name."""
    return path.lower().endswith(_ZIP + _TAR)


def unpack(archive: Path, folder: Path, strip: int = 0) -> dict[str, int]:
    """Unpack ``archive`` below ``folder``, dropping the ``strip`` leading folders of each path.

    Returns the bytes of each file by its path below ``folder``. A file of the same path is
    replaced. ``ArchiveError`` where the archive is damaged, may not be unpacked or does not fit on
    the disk.
    """
    try:
        with _opened(archive) as opened:
            wanted = _checked(archive, opened, folder, strip)
            for path, member in wanted.items():
                _write(opened, member, folder / path)
    except _DAMAGE as error:
        raise ArchiveError(
            f"{archive} is damaged ({type(error).__name__}): delete it and fetch again."
        ) from error
    except OSError as error:
        raise ArchiveError(
            f"{archive} cannot be unpacked into {folder} ({error.strerror or error}): free the "
            "disk or choose another data_root."
        ) from error
    return {path: member.bytes for path, member in wanted.items()}


_Opened = zipfile.ZipFile | tarfile.TarFile


@contextmanager
def _opened(archive: Path) -> Iterator[_Opened]:
    opened: _Opened
    if archive.name.lower().endswith(_ZIP):
        opened = zipfile.ZipFile(archive)
    else:
        opened = tarfile.open(archive, "r:*")
    with opened:
        yield opened


def _members(opened: _Opened) -> Iterator[_Member]:
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            yield _Member(info.filename, info.file_size, _zip_kind(info), info)
    else:
        for entry in opened:
            yield _Member(entry.name, entry.size, _tar_kind(entry), entry)


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16  # zero where the archive was not made on Unix
    if info.flag_bits & 1:
        return "encrypted"
    if stat.S_ISLNK(mode):
        return "a link"
    if info.is_dir():
        return "folder"
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "a device"


def _tar_kind(entry: tarfile.TarInfo) -> str:
    if entry.issym() or entry.islnk():
        return "a link"
    if entry.isdir():
        return "folder"
    return "file" if entry.isreg() else "a device"


def _checked(archive: Path, opened: _Opened, folder: Path, strip: int) -> dict[str, _Member]:
    """The members to write, by path; ``ArchiveError`` at the first that must not be."""
    root, total, wanted = folder.resolve(), 0, dict[str, _Member]()
    most = max(ALWAYS_ALLOWED_BYTES, MOST_SWELLING * archive.stat().st_size)
    for count, member in enumerate(_members(opened), start=1):
        total += member.bytes
        if total > most or count > MOST_MEMBERS:
            raise ArchiveError(
                f"{archive} holds more than {MOST_MEMBERS:,} files or {most / 1e9:.1f} GB, out of "
                f"all proportion to its size: it looks like a bomb and is not unpacked."
            )
        path = _path(archive, member, strip)
        if path is None:
            continue
        if path in wanted:
            raise ArchiveError(
                f"{archive} holds {path!r} twice: unpack it by hand, if you trust it."
            )
        if not (root / path).parent.resolve().is_relative_to(root):
            raise ArchiveError(
                f"{archive} would write {path!r} through a link out of {folder}: remove the link."
            )
        wanted[path] = member
    _check_space(archive, folder, total)
    return wanted


def _path(archive: Path, member: _Member, strip: int) -> str | None:
    """Where a member goes below the folder; ``None`` for a folder and for macOS's shadow files."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise ArchiveError(
            f"{archive} holds the path {member.name!r}, which leads out of its folder: it is not "
            "unpacked; tell the data's owner."
        )
    if member.kind == "folder" or "__MACOSX" in path.parts:
        return None
    if member.kind != "file":
        raise ArchiveError(
            f"{archive} holds {member.name!r}, which is {member.kind}: only plain files are "
            "unpacked; unpack it by hand, if you trust it."
        )
    if len(path.parts) <= strip:
        raise ArchiveError(
            f"{archive} holds {member.name!r} above the {strip} leading folders that are declared "
            "for it: its layout has changed, unpack it by hand."
        )
    return PurePosixPath(*path.parts[strip:]).as_posix()


def _check_space(archive: Path, folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ArchiveError(
            f"{archive} needs {needed / 1e9:.1f} GB unpacked and {folder} has {free / 1e9:.1f} GB "
            "free: free the disk or choose another data_root."
        )


def _write(opened: _Opened, member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with _stream(opened, member) as stream, temporary.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _stream(opened: _Opened, member: _Member) -> IO[bytes]:
    if isinstance(member.handle, zipfile.ZipInfo) and isinstance(opened, zipfile.ZipFile):
        return opened.open(member.handle)
    assert isinstance(member.handle, tarfile.TarInfo) and isinstance(opened, tarfile.TarFile)
    stream = opened.extractfile(member.handle)
    assert stream is not None  # it is a plain file
    return stream
