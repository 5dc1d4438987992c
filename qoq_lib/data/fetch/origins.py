"""Where data come from: one small declaration per kind of host.

An origin whose files are fetched one by one says which, in ``files``. ``needs`` says what somebody
must have before it works. Where the host publishes checksums they are taken from it at the time of
fetching; none is written here from memory.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote

from qoq_lib.data.fetch.archives import is_archive
from qoq_lib.data.fetch.errors import FetchError
from qoq_lib.data.fetch.logins import HOW_TO_LOG_IN, PHYSIONET_HOST
from qoq_lib.data.fetch.remote import RemoteFile, Unpack

PHYSIONET = f"https://{PHYSIONET_HOST}"
TCIA = "https://services.cancerimagingarchive.net/nbia-api/services/v1"


class Shelf(Protocol):
    """Where an origin keeps its listings, so that a second run asks nobody for them."""

    def get(self, listing: RemoteFile) -> Path:
        """Where ``listing`` lies, which is fetched unless it does."""

    def keep(self, path: str, make: Callable[[], str]) -> str:
        """The text below the source's folder at ``path``, made and written unless it is there."""


_PHYSIONET_NEEDS = {
    "open": "nothing",
    "restricted": f"a PhysioNet account, the signed data use agreement, and {HOW_TO_LOG_IN}",
    "credentialed": "a PhysioNet account that is credentialed (CITI training), the signed data "
    f"use agreement, and {HOW_TO_LOG_IN}",
}


@dataclass(frozen=True)
class Files:
    """Files at fixed addresses, anybody's to fetch.

    ``more`` lists further ones from the folder where the first have been put.
    """

    listed: tuple[RemoteFile, ...]
    more: Callable[[Path], list[RemoteFile]] | None = None

    needs = "nothing"

    def files(self, shelf: Shelf) -> list[RemoteFile]:
        """The fixed files, then those that they name."""
        return list(self.listed)


@dataclass(frozen=True)
class PhysioNet:
    """A version of a PhysioNet project: the files of its ``SHA256SUMS.txt`` that match ``only``."""

    project: str
    version: str
    access: Literal["open", "restricted", "credentialed"] = "open"
    only: tuple[str, ...] = ("*",)

    @property
    def needs(self) -> str:
        """What its access class asks for."""
        return _PHYSIONET_NEEDS[self.access]

    def files(self, shelf: Shelf) -> list[RemoteFile]:
        """Every wanted file with the SHA-256 that PhysioNet publishes."""
        base = f"{PHYSIONET}/files/{self.project}/{self.version}"
        listing = shelf.get(RemoteFile(f"{base}/SHA256SUMS.txt", "SHA256SUMS.txt"))
        lines = listing.read_text(encoding="utf-8").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        if any(len(pair) != 2 or len(pair[0]) != 64 for pair in pairs):
            raise FetchError(
                f"{base}/SHA256SUMS.txt is not a list of checksums: delete {listing} and run again."
            )
        return [
            RemoteFile(f"{base}/{quote(path)}", path, f"sha256:{checksum}")
            for checksum, path in pairs
            if any(fnmatchcase(path, pattern) for pattern in self.only)
        ]


@dataclass(frozen=True)
class Doi:
    """A deposit at Zenodo, figshare or Dataverse, resolved by pooch with the deposit's checksums.

    Archives in it are unpacked.
    """

    doi: str

    needs = "nothing"

    def files(self, shelf: Shelf) -> list[RemoteFile]:
        """Every wanted file of the deposit; ``FetchError`` where the DOI cannot be resolved."""
        found = json.loads(shelf.keep(f"{self.doi.replace('/', '_')}.json", self._listing))
        return [
            RemoteFile(url, name, checksum, Unpack() if is_archive(name) else None)
            for name, (url, checksum) in sorted(found.items())
        ]

    def _listing(self) -> str:
        """Address and checksum of each file of the deposit by its name, as JSON."""
        pooch = imported("pooch")
        try:
            deposit = pooch.downloaders.doi_to_repository(self.doi, timeout=60)
            listing = pooch.create(path=".", base_url="", registry={})
            deposit.populate_registry(listing)
            return json.dumps(
                {
                    name: (deposit.download_url(name), sum_)
                    for name, sum_ in listing.registry.items()
                }
            )
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise FetchError(
                f"The deposit doi:{self.doi} cannot be listed ({type(error).__name__}): look at "
                f"https://doi.org/{self.doi} and run again later."
            ) from None


@dataclass(frozen=True)
class Tcia:
    """A collection of The Cancer Imaging Archive: a folder of DICOM files per series.

    They lie in ``<collection>/<patient>/<study uid>/<series uid>/``, and ``metadata.csv`` says of
    each series where, with the columns of the archive's own download program.
    """

    collection: str

    needs = "nothing"

    def files(self, shelf: Shelf) -> list[RemoteFile]:
        """An archive per series; TCIA publishes no checksums."""
        address = f"{TCIA}/getSeries?Collection={quote(self.collection)}&format=json"
        listing = shelf.get(RemoteFile(address, f"{self.collection}.series.json"))
        try:
            series = json.loads(listing.read_text(encoding="utf-8"))
            shelf.keep("metadata.csv", lambda: self._metadata(series))
            return [
                RemoteFile(
                    f"{TCIA}/getImage?NewFileNames=Yes&SeriesInstanceUID="
                    f"{quote(one['SeriesInstanceUID'])}",
                    f"{self._folder(one)}.zip",
                    unpack=Unpack(self._folder(one)),
                )
                for one in series
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise FetchError(f"{listing} is no list of series: delete it and run again.") from error

    def _folder(self, one: dict[str, Any]) -> str:
        parts = (one[name] for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"))
        return "/".join((self.collection, *parts))

    def _metadata(self, series: list[dict[str, Any]]) -> str:
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("Series UID", "Subject ID", "Series Description", "File Location"))
        for one in series:
            description = one.get("SeriesDescription", "")
            place = f"./{self._folder(one)}"
            writer.writerow((one["SeriesInstanceUID"], one["PatientID"], description, place))
        return text.getvalue()


@dataclass(frozen=True)
class Kaggle:
    """A data set ``owner/name``, or a competition, fetched by kagglehub.

    ``strip`` drops as many leading folders of its own.
    """

    handle: str
    competition: bool = False
    strip: int = 0

    @property
    def needs(self) -> str:
        """A token, and for a competition its rules."""
        token = "a free Kaggle account with its API token (kaggle.json or KAGGLE_API_TOKEN)"
        return f"{token}, and its rules accepted on the page" if self.competition else token


@dataclass(frozen=True)
class Hub:
    """A dataset repository on the Hugging Face Hub, fetched by huggingface_hub.

    ``strip`` drops as many leading folders of its own.
    """

    repo: str
    revision: str
    only: tuple[str, ...] = ("*",)
    strip: int = 0

    needs = "nothing; for a gated repository its terms accepted and HF_TOKEN"


@dataclass(frozen=True)
class ByHand:
    """What no program may or can fetch: ``needs`` says what to do, ``shows`` matches what is then
    there.
    """

    needs: str
    shows: str


Listed = Files | PhysioNet | Doi | Tcia
Origin = Listed | Kaggle | Hub | ByHand


def imported(name: str) -> Any:
    """The module ``name`` of the data extra; ``FetchError`` where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise FetchError(
            f"The package {name} is not installed: run \"pip install -e '.[data]'\"."
        ) from None
