"""Fetch data sets into the folders where their readers look for them, and say how each is had."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from qoq_lib.data.cards.card import Card, CardError, load_card
from qoq_lib.data.fetch.errors import AccessError, FetchError
from qoq_lib.data.fetch.ledger import Ledger
from qoq_lib.data.fetch.logins import PHYSIONET_HOST, physionet_login
from qoq_lib.data.fetch.origins import ByHand, Origin, PhysioNet
from qoq_lib.data.fetch.registry import ORIGINS
from qoq_lib.data.fetch.steps import Place, carry_out
from qoq_lib.data.fetch.transfers import Transfers
from qoq_lib.data.sources.source import Source

LOCKS = ".fetched"
"""The folder below the data root that holds a lock per download, and what is unfinished."""

Status = Literal["complete", "put there by hand", "to request"]


@dataclass(frozen=True)
class Fetched:
    """What has become of one download, from which the ``sources`` are read.

    ``new`` counts the files that this call brought, an archive as one; ``unchecked`` those of all
    calls whose owner publishes no checksum; ``note`` says what is left to do.
    """

    name: str
    folder: Path
    sources: tuple[str, ...]
    status: Status
    new: int = 0
    unchecked: int = 0
    note: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can be assembled."""
        return self.status != "to request"


@dataclass(frozen=True)
class _Download:
    """An entry of the registry, for some sources that share a data card."""

    name: str
    folder: str
    card: Card
    sources: tuple[str, ...]

    @property
    def origins(self) -> tuple[Origin, ...]:
        return ORIGINS[self.name]


def fetch(sources: Sequence[Source], data_root: Path) -> list[Fetched]:
    """Fetch what is missing of ``sources`` below ``data_root``; what is there stays untouched.

    Data whose owner wants a login, a request or accepted terms first are reported as "to request"
    and do not keep the others from coming. A folder that was filled without this function is taken
    as it is. Raises ``FetchError``, after all have been tried, where another fault kept one from
    being complete; run again to go on from there.
    """
    done: list[Fetched] = []
    failures: list[str] = []
    downloads = _downloads(sources)
    for download in downloads:
        try:
            done.append(_fetch_one(download, Path(data_root)))
        except FetchError as error:
            failures.append(f"{download.name}: {error}")
    if failures:
        raise FetchError(
            f"{len(failures)} of {len(downloads)} downloads failed, the others are kept. "
            + " | ".join(failures)
        )
    return done


def access_table(sources: Sequence[Source], data_root: Path) -> pd.DataFrame:
    """How each of ``sources`` is had: access class, what is needed, terms and folder, a row each.

    Access and terms are those of its data card. The folder is below the data root; the last column
    says whether there are files in it.
    """
    rows = []
    for download in _downloads(sources):
        folder = Path(data_root) / download.folder
        needs = [origin.needs for origin in download.origins if origin.needs != "nothing"]
        rows.append(
            {
                "data set": download.name,
                "access": download.card.access,
                "what is needed": "; ".join(needs) or "nothing",
                "terms": download.card.terms or download.card.homepage,
                "folder": download.folder,
                "files there": "yes" if _holds_files(folder) else "no",
            }
        )
    return pd.DataFrame(rows)


def ready_names(fetched: Sequence[Fetched]) -> list[str]:
    """The sources of ``fetched`` that can be assembled, with every download they are read from.

    Says which cannot; ``FetchError`` where that is all of them.
    """
    waiting = [one for one in fetched if not one.ready]
    for one in waiting:
        print(f"{one.name} is left out: {one.note}")
    lacking = {name for one in waiting for name in one.sources}
    names = dict.fromkeys(name for one in fetched for name in one.sources if name not in lacking)
    if not names:
        raise FetchError(
            f"None of the data sets is here: {', '.join(one.name for one in waiting)} must be "
            "requested first (the table of notebook 01 says where), or fetched with a login."
        )
    return list(names)


def _downloads(sources: Sequence[Source]) -> list[_Download]:
    """The downloads of ``sources``, each once; ``FetchError`` where none is declared for one."""
    found: dict[str, _Download] = {}
    for source in sources:
        card = _card(source)
        for name, folder in (source.parts or {card.name: source.folder}).items():
            first = found.get(name, _Download(name, folder, card, ()))
            found[name] = replace(first, sources=(*first.sources, source.name))
    return list(found.values())


def _card(source: Source) -> Card:
    try:
        card = load_card(source.name)
    except CardError as error:
        raise FetchError(str(error)) from error
    if card.name not in ORIGINS:
        raise FetchError(
            f"Nothing is declared about where {source.name} comes from: put it into "
            f"{source.folder} by hand, or add it to qoq_lib/data/fetch/registry.py."
        )
    return card


def _fetch_one(download: _Download, root: Path) -> Fetched:
    name, origins = download.name, download.origins
    folder, lock = root / download.folder, root / LOCKS / f"{name}.jsonl"
    partly_by_hand = any(isinstance(origin, ByHand) for origin in origins)
    if not lock.exists() and not partly_by_hand and _holds_files(folder):
        note = "its files are not checked"
        return Fetched(name, folder, download.sources, "put there by hand", note=note)
    ledger = Ledger(lock, folder)
    login = physionet_login() if any(isinstance(one, PhysioNet) for one in origins) else None
    transfers = Transfers({PHYSIONET_HOST: login} if login else {})
    place = Place(name, folder, root / LOCKS / f"{name}.partial", ledger, transfers)
    try:
        ledger.begin()
        wanting = [note for note in (_carry_out(origin, place) for origin in origins) if note]
    finally:
        if not _holds_files(folder):  # nothing came: it may still be put there by hand
            lock.unlink(missing_ok=True)
    status: Status = "to request" if wanting else "complete"
    note = " ".join(wanting)
    return Fetched(name, folder, download.sources, status, ledger.added, ledger.unchecked(), note)


def _carry_out(origin: Origin, place: Place) -> str:
    """What is wanting before ``origin`` can be fetched; empty where it is complete."""
    try:
        carry_out(origin, place)
    except AccessError as error:
        return str(error)
    return ""


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))
