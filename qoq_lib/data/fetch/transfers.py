"""One file over HTTP: resumed where it broke off, checked, and named only when it is whole.

Nothing that a server or a library says about a request is repeated in a message, because redirects
lead to signed addresses: messages name the address that was asked for, without its query.
"""

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
import urllib3

from qoq_lib.data.fetch.errors import FetchError
from qoq_lib.data.fetch.remote import digest, shown
from qoq_lib.data.fetch.replies import (
    BusyError,
    ShortError,
    check,
    check_space,
    check_whole,
    range_start,
    tag,
)

ATTEMPTS = 5
"""How often in a row a transfer may fail without a new byte."""

LONGEST_WAIT_S = 600.0
_CHUNK = 1 << 20
_TIMEOUT_S = (30.0, 120.0)  # to connect, and between two bytes
_SECONDS_BETWEEN_LINES = 30.0
_BROKEN = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
)

Login = tuple[str, str]
"""User name and password."""


class Transfers:
    """The connections of one fetch; ``stop`` ends the transfers of all threads at the next chunk.

    ``logins`` are by host name and are sent to that host only, never along a redirect to another.
    """

    def __init__(self, logins: Mapping[str, Login] | None = None) -> None:
        self.stop = threading.Event()
        self._logins = dict(logins or {})
        self._session = _Session()
        self._session.headers.update({"User-Agent": "qoq-med-repro", "Accept-Encoding": "identity"})

    def download(self, url: str, target: Path, expected: str | None = None) -> str:
        """Fetch ``url`` to ``target`` and return its SHA-256.

        What an earlier, interrupted call left in ``<target>.part`` is continued. ``expected`` is
        ``algorithm:hex``. ``AccessError`` on 401 and 403, ``FetchError`` on anything else that
        keeps the whole, right file from being there; ``target`` is then as it was.
        """
        part = target.with_name(f"{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            continued = part.exists()
            self._receive(url, part, bool(expected))
            sha256, right = digest(part, expected)
            if not right and continued:  # its beginning may be of another version of the file
                _forget(part)
                self._receive(url, part, bool(expected))
                sha256, right = digest(part, expected)
            if not right:
                _forget(part)
                raise FetchError(
                    f"{shown(url)} arrives with another checksum than {expected}: fetch again "
                    "later; if its owner has replaced the file, delete its line in .fetched."
                )
            os.replace(part, target)
            _tag_file(part).unlink(missing_ok=True)
        except OSError as error:
            raise FetchError(
                f"Cannot write {target} ({error.strerror or type(error).__name__}): free the disk "
                "or choose another data_root."
            ) from None
        return sha256

    def _receive(self, url: str, part: Path, checked: bool) -> None:
        failures = 0
        while True:
            before = _size(part)
            wait: float | None = None
            try:
                self._transfer(url, part, checked)
                return
            except BusyError as busy:
                reason, wait = f"it answers {busy.status}", busy.wait_s
            except ShortError:
                reason = "the transfer breaks off"
            except _BROKEN as error:
                reason = f"{type(error).__name__}"
            except requests.RequestException as error:
                raise FetchError(
                    f"{shown(url)} cannot be fetched ({type(error).__name__}): check the address."
                ) from None
            failures = 0 if _size(part) > before else failures + 1
            if failures == ATTEMPTS:
                raise FetchError(
                    f"{shown(url)} cannot be fetched, {ATTEMPTS} times in a row ({reason}): what "
                    "has arrived is kept, run again later."
                )
            self._pause(wait if wait is not None else 2.0**failures)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(min(seconds, LONGEST_WAIT_S)):
            raise FetchError("Fetching was stopped; run again to go on.")

    def _transfer(self, url: str, part: Path, checked: bool) -> None:
        """Append to ``part`` what is missing of ``url``, or begin anew where that is not safe."""
        version = _tag_file(part).read_text() if _tag_file(part).exists() else ""
        if not (version or checked):  # a changed file would be joined to the old one unnoticed
            _forget(part)
        held = _size(part)
        headers = {"Range": f"bytes={held}-"} if held else {}
        if held and version:
            headers["If-Range"] = version
        with self._session.get(
            url, headers=headers, stream=True, timeout=_TIMEOUT_S, auth=self._auth(url)
        ) as response:
            if response.status_code == 416:
                check_whole(response, part, held)
                return
            check(response, url, bool(self._login(url)))
            start = held if response.status_code == 206 else 0
            if start and range_start(response) != start:
                _forget(part)
                raise ShortError
            _tag_file(part).write_text(tag(response))
            self._write(response, part, start, url)

    def _write(self, response: requests.Response, part: Path, start: int, url: str) -> None:
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        check_space(part, (total or 0) - start, url)
        meter = _Meter(PurePosixPath(urlsplit(url).path).name, start, total)
        with part.open("ab" if start else "wb") as file:
            for chunk in response.raw.stream(_CHUNK, decode_content=False):
                if self.stop.is_set():
                    raise FetchError("Fetching was stopped; run again to go on.")
                file.write(chunk)
                meter.add(len(chunk))
        if total is not None and _size(part) != total:
            raise ShortError

    def _login(self, url: str) -> Login | None:
        return self._logins.get(urlsplit(url).hostname or "")

    def _auth(self, url: str) -> requests.auth.AuthBase:
        login = self._login(url)
        return requests.auth.HTTPBasicAuth(*login) if login else _NoAuth()


class _NoAuth(requests.auth.AuthBase):
    """Keeps requests from sending what netrc holds for a host to which no login is declared."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    """Redirects lose the login when they leave its host, and never go from HTTPS to HTTP."""

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        old, new = response.request.url or "", prepared_request.url or ""
        if old.startswith("https:") and not new.startswith("https:"):
            raise FetchError(
                f"{shown(old)} leads to an address without encryption: tell the data's owner."
            )
        if self.should_strip_auth(old, new):
            prepared_request.headers.pop("Authorization", None)


class _Meter:
    """A line every half minute for a file that takes long."""

    def __init__(self, name: str, done: int, total: int | None) -> None:
        self._name, self._done, self._total = name, done, total
        self._last_line = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            of = f" of {self._total / 1e9:.2f}" if self._total else ""
            print(f"{self._name}: {self._done / 1e9:.2f}{of} GB", flush=True)
            self._last_line = time.monotonic()


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
