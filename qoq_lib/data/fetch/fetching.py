"""Fetch data sets into the folders where their readers look for them, and say how each is had."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from qoq_lib.data.cards import load_card
from qoq_lib.data.fetch.errors import AccessError, FetchError
from qoq_lib.data.fetch.ledger import Ledger
from qoq_lib.data.fetch.logins import PHYSIONET_HOST, physionet_login
from qoq_lib.data.fetch.origins import ByHand, Origin, PhysioNet
from qoq_lib.data.fetch.registry import ORIGINS
from qoq_lib.data.fetch.steps import Place, carry_out
from qoq_lib.data.fetch.transfers import Transfers
from qoq_lib.data.sources.source import Source

LOCKS = ".fetched"
"""The folder below the data root that holds a lock per source, and unfinished downloads."""

Status = Literal["complete", "put there by hand", "to request"]


@dataclass(frozen=True)
class Fetched:
    """What has become of one source.

    ``new`` counts the files that this call brought, an archive as one; ``unchecked`` those of all
    calls whose owner publishes no checksum; ``note`` says what is left to do.
    """

    source: str
    folder: Path
    status: Status
    new: int = 0
    unchecked: int = 0
    note: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can be assembled."""
        return self.status != "to request"


def fetch(sources: Sequence[Source], data_root: Path) -> list[Fetched]:
    """Fetch what is missing of ``sources`` below ``data_root``; what is there stays untouched.

    A source whose owner wants a login, a request or accepted terms first is reported as "to
    request" and does not keep the others from coming. A folder that was filled without this
    function is taken as it is. Raises ``FetchError``, after all have been tried, where another
    fault kept one of them from being complete; run again to go on from there.
    """
    done: list[Fetched] = []
    failures: list[str] = []
    for source in sources:
        try:
            done.append(_fetch_source(source, Path(data_root)))
        except FetchError as error:
            failures.append(f"{source.name}: {error}")
    if failures:
        raise FetchError(
            f"{len(failures)} of {len(sources)} data sets cannot be fetched. {' | '.join(failures)}"
        )
    return done


def access_table(sources: Sequence[Source], data_root: Path) -> pd.DataFrame:
    """How each of ``sources`` is had: access class, what is needed, terms and folder, a row each.

    Access and terms are those of its data card; the last column says whether its folder has files.
    """
    rows = []
    for source in sources:
        card, folder = load_card(source.name), Path(data_root) / source.folder
        needs = dict.fromkeys(origin.needs for origin in _origins(source))
        needs.pop("nothing", None)
        rows.append(
            {
                "data set": source.name,
                "access": card.access,
                "what is needed": "; ".join(needs) or "nothing",
                "terms": card.terms or card.homepage,
                "folder": str(folder),
                "something there": _holds_files(folder),
            }
        )
    return pd.DataFrame(rows)


def _fetch_source(source: Source, root: Path) -> Fetched:
    folder, lock = root / source.folder, root / LOCKS / f"{source.name}.jsonl"
    origins = _origins(source)
    partly_by_hand = any(isinstance(origin, ByHand) for origin in origins)
    if not lock.exists() and not partly_by_hand and _holds_files(folder):
        return Fetched(source.name, folder, "put there by hand", note="its files are not checked")
    ledger = Ledger(lock, folder)
    login = physionet_login() if any(isinstance(one, PhysioNet) for one in origins) else None
    transfers = Transfers({PHYSIONET_HOST: login} if login else {})
    place = Place(source.name, folder, root / LOCKS / f"{source.name}.partial", ledger, transfers)
    try:
        ledger.begin()
        wanting = [note for note in (_carry_out(origin, place) for origin in origins) if note]
    finally:
        if not _holds_files(folder):  # nothing came: it may still be put there by hand
            lock.unlink(missing_ok=True)
    return Fetched(
        source.name,
        folder,
        "to request" if wanting else "complete",
        ledger.added,
        ledger.unchecked(),
        wanting[0] if wanting else "",
    )


def _carry_out(origin: Origin, place: Place) -> str:
    """What is wanting before ``origin`` can be fetched; empty where it is complete."""
    try:
        carry_out(origin, place)
    except AccessError as error:
        return str(error)
    return ""


def _origins(source: Source) -> tuple[Origin, ...]:
    if source.name not in ORIGINS:
        raise FetchError(
            f"Nothing is declared about where {source.name} comes from: put it into "
            f"{source.folder} by hand, or add it to qoq_lib/data/fetch/registry.py."
        )
    return ORIGINS[source.name]


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))
