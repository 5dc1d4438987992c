"""How one origin is carried out: what is missing is fetched, unpacked and written into the lock."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from qoq_lib.data.fetch.archives import unpack
from qoq_lib.data.fetch.errors import AccessError, FetchError
from qoq_lib.data.fetch.ledger import Ledger, Received
from qoq_lib.data.fetch.origins import ByHand, Files, Hub, Kaggle, Listed, Origin, imported
from qoq_lib.data.fetch.remote import RemoteFile, Unpack, digest, shown
from qoq_lib.data.fetch.transfers import Transfers
from qoq_lib.data.sources.source import SourceError, inside
from qoq_lib.runs import progress, write_text_atomic

WORKERS = 4
MOST_FAILURES = 5
"""A host at which so many files fail is left alone; fewer do not keep the others from coming."""

_BATCH = 1000  # a project may have millions of files, and each that waits takes memory


@dataclass(frozen=True)
class Place:
    """Where a source's files go, what is known of them, and how they come.

    ``staging`` is a folder for what other programs fetch; it is removed when they succeed.
    """

    name: str
    folder: Path
    staging: Path
    ledger: Ledger
    transfers: Transfers


@dataclass(frozen=True)
class _PlaceShelf:
    place: Place

    def get(self, listing: RemoteFile) -> Path:
        _fetch_all([listing], self.place)
        return self.place.folder / listing.path

    def keep(self, path: str, make: Callable[[], str]) -> str:
        kept = self.place.folder / path
        if not kept.is_file():
            write_text_atomic(kept, make())
        return kept.read_text(encoding="utf-8")


def carry_out(origin: Origin, place: Place) -> None:
    """Fetch what is missing of ``origin``; ``AccessError`` or ``FetchError`` where it cannot be."""
    if isinstance(origin, ByHand):
        if not any(place.folder.glob(origin.shows)):
            raise AccessError(f"{place.folder / origin.shows} is missing: {origin.needs}.")
    elif isinstance(origin, Kaggle):
        _collect(origin, place, "kagglehub", f"kaggle:{origin.handle}")
    elif isinstance(origin, Hub):
        _collect(origin, place, "huggingface_hub", f"hub:{origin.repo}@{origin.revision}")
    else:
        _fetch_listed(origin, place)


def _fetch_listed(origin: Listed, place: Place) -> None:
    _fetch_all(origin.files(_PlaceShelf(place)), place)
    if isinstance(origin, Files) and origin.more is not None:
        _fetch_all(origin.more(place.folder), place)


def _fetch_all(files: Sequence[RemoteFile], place: Place) -> None:
    _check_places(files, place)
    missing = [file for file in files if not place.ledger.holds(file.path)]
    if not missing:
        return
    ticks = progress(len(missing), f"{place.name}: files")
    failures: list[FetchError] = []
    for start in range(0, len(missing), _BATCH):
        if len(failures) < MOST_FAILURES:
            _fetch_batch(missing[start : start + _BATCH], place, ticks, failures)
    next(ticks, None)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise FetchError(f"{len(failures)} files of {place.name} failed. The first: {failures[0]}")


def _fetch_batch(
    files: Sequence[RemoteFile], place: Place, ticks: Iterator[int], failures: list[FetchError]
) -> None:
    """Fetch ``files``, adding to ``failures``; what arrives is in the lock at once."""
    pool = ThreadPoolExecutor(WORKERS)
    try:
        futures = {pool.submit(_receive, file, place): file for file in files}
        for future in as_completed(futures):
            next(ticks, None)
            try:
                place.ledger.add(_kept(futures[future], future.result(), place))
            except AccessError:
                raise
            except FetchError as error:
                failures.append(error)
                if len(failures) == MOST_FAILURES:
                    return
    finally:  # of Ctrl-C, too: running transfers end at their next chunk
        place.transfers.stop.set()
        pool.shutdown(cancel_futures=True)
        place.transfers.stop.clear()


def _check_places(files: Sequence[RemoteFile], place: Place) -> None:
    """Listings come from strangers: no file may lie outside the folder, be it through a link."""
    where = f"The list of the files of {place.name}"
    try:
        folders = {inside(place.folder, file.path, where).parent for file in files}
    except SourceError as error:
        raise FetchError(str(error)) from error
    root = place.folder.resolve()
    for folder in folders:
        if not folder.resolve().is_relative_to(root):
            raise FetchError(
                f"{folder} is a link out of {place.folder}, and files of {place.name} would be "
                "written through it: remove the link, or make the whole folder one."
            )


def _receive(file: RemoteFile, place: Place) -> str:
    """The SHA-256 of the file, which is fetched unless it lies there, put by hand or earlier."""
    target, known = place.folder / file.path, place.ledger.get(file.path)
    expected = file.checksum or (f"sha256:{known.sha256}" if known and known.sha256 else None)
    if not target.is_file():
        return place.transfers.download(file.url, target, expected)
    sha256, right = digest(target, expected)
    if not right:
        raise FetchError(
            f"{target} has another checksum than {expected}: delete it, and it is fetched again."
        )
    return sha256


def _kept(file: RemoteFile, sha256: str, place: Place) -> list[Received]:
    """The lines of a file that has arrived, after unpacking it where that is declared."""
    target, origin = place.folder / file.path, shown(file.url)
    size = target.stat().st_size
    checked_by = "published checksum" if file.checksum else "nothing"
    if file.unpack is None:
        return [Received(file.path, size, sha256, origin, checked_by)]
    members = _unpacked(target, place.folder / file.unpack.into, file.unpack)
    target.unlink()
    return [
        *(
            Received(
                (PurePosixPath(file.unpack.into) / path).as_posix(),
                held,
                None,
                origin,
                checked_by,
                file.path,
            )
            for path, held in members.items()
        ),
        Received(file.path, size, sha256, origin, checked_by, None, len(members)),
    ]


def _unpacked(archive: Path, folder: Path, how: Unpack) -> dict[str, int]:
    members = unpack(archive, folder, how.strip)
    for inner in [path for path in members if how.nested and fnmatchcase(path, how.nested)]:
        held = (folder / inner).parent.relative_to(folder)
        for path, size in unpack(folder / inner, folder / held, strip=1).items():
            members[(held / path).as_posix()] = size
        (folder / inner).unlink()
        del members[inner]
    return members


def _collect(origin: Kaggle | Hub, place: Place, program: str, name: str) -> None:
    """Let ``program`` fetch into the staging folder, and move what it brought."""
    known = place.ledger.from_origin(name)
    if known and all(place.ledger.holds(line.path) for line in known):
        return
    with _their_errors(program, name):
        if isinstance(origin, Kaggle):
            brought = _from_kaggle(origin, place.staging)
        else:
            brought = _from_hub(origin, place.staging)
    place.ledger.add(
        Received(path, size, None, name, program)
        for path, size in _moved(brought, place.folder, origin.strip)
    )
    shutil.rmtree(place.staging)


def _from_kaggle(origin: Kaggle, staging: Path) -> Path:
    kagglehub = imported("kagglehub")
    download = kagglehub.competition_download if origin.competition else kagglehub.dataset_download
    # Its cache continues an interrupted download, which its output_dir refuses to do.
    where = {"KAGGLEHUB_CACHE": str(staging), "DISABLE_KAGGLE_CACHE": "1"}
    before = {name: os.environ.get(name) for name in where}
    os.environ.update(where)
    try:
        return Path(download(origin.handle))
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _from_hub(origin: Hub, staging: Path) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            origin.repo,
            repo_type="dataset",
            revision=origin.revision,
            allow_patterns=list(origin.only),
            local_dir=staging,
        )
    )


@contextmanager
def _their_errors(program: str, name: str) -> Iterator[None]:
    """Their messages hold addresses and headers: only the kind of the error is passed on."""
    try:
        yield
    except FetchError:
        raise
    except Exception as error:  # they raise dozens of kinds, most straight from Exception
        status = getattr(getattr(error, "response", None), "status_code", None)
        kind = type(error).__name__
        if status in (401, 403) or kind in ("UnauthenticatedError", "CredentialError"):
            raise AccessError(
                f"{program} may not fetch {name} ({kind}): log in and accept the terms there, as "
                "the access table says."
            ) from None
        raise FetchError(
            f"{program} cannot fetch {name} ({kind}, status {status}): check the network and run "
            "again; what has arrived is kept."
        ) from None


def _moved(source: Path, target: Path, strip: int) -> Iterator[tuple[str, int]]:
    """Move the files of ``source`` and yield path and bytes of each."""
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        if path.is_symlink():
            raise FetchError(f"{path} is a link: only plain files are taken over.")
        if path.is_dir() or parts[0] == ".cache":
            continue
        if len(parts) <= strip:
            raise FetchError(
                f"{path} lies above the {strip} leading folders that are declared for it: the "
                "layout has changed, put the files into their folder by hand."
            )
        size, place = path.stat().st_size, target.joinpath(*parts[strip:])
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
        yield place.relative_to(target).as_posix(), size
