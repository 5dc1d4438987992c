"""What a server's reply to a request for a file means."""

import shutil
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import requests

from qoq_lib.data.fetch.errors import AccessError, FetchError
from qoq_lib.data.fetch.remote import shown

_BUSY = {408, 429, 500, 502, 503, 504}


class BusyError(Exception):
    """The server asks to come again later; ``wait_s`` where it says when."""

    def __init__(self, status: int, wait_s: float | None) -> None:
        self.status = status
        self.wait_s = wait_s


class ShortError(Exception):
    """Fewer bytes came than were announced."""


def check(response: requests.Response, url: str, with_login: bool) -> None:
    """Return if the reply brings the file (200 or 206), else raise what its status means."""
    status, host = response.status_code, urlsplit(url).hostname
    if status == 401:
        raise AccessError(
            f"{host} refuses the user name and password for {shown(url)}: correct them."
            if with_login
            else f"{host} asks for a login for {shown(url)}: give yours, as the access table says."
        )
    if status == 403:
        raise AccessError(
            f"{host} does not let you have {shown(url)}: request access and accept the terms "
            "there, as the access table says."
        )
    if status in (404, 410):
        raise FetchError(
            f"{shown(url)} is not there (any more): look for it on the data set's home page, named "
            "in its data card, and put it into its folder by hand."
        )
    if status in _BUSY:
        raise BusyError(status, _retry_after(response))
    if status not in (200, 206):
        raise FetchError(f"{shown(url)} answers {status}: check the address.")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise AccessError(
            f"{shown(url)} answers with a web page in place of the file, probably to log in or "
            "accept terms: do so in a browser and put the file into its folder by hand."
        )


def check_whole(response: requests.Response, part: Path, held: int) -> None:
    """The server has nothing beyond ``held``: the part is whole, or of another file."""
    if response.headers.get("Content-Range", "").rpartition("/")[2] != str(held):
        part.unlink()
        raise ShortError


def check_space(part: Path, needed: int, url: str) -> None:
    """Refuse a file of ``needed`` bytes that the disk cannot hold."""
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise FetchError(
            f"{shown(url)} needs {needed / 1e9:.1f} GB more and {part.parent} has "
            f"{free / 1e9:.1f} GB free: free the disk or choose another data_root."
        )


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def range_start(response: requests.Response) -> int | None:
    """The first byte that a 206 brings."""
    text = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(text) if text.isdigit() else None


def tag(response: requests.Response) -> str:
    """What identifies this version of the file in ``If-Range``; a weak ETag does not."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
