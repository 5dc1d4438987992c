"""The user's own credentials: read when needed, kept nowhere, shown never."""

import netrc
import os
from pathlib import Path

from qoq_lib.data.fetch.errors import FetchError
from qoq_lib.data.fetch.transfers import Login

PHYSIONET_HOST = "physionet.org"
HOW_TO_LOG_IN = (
    "PHYSIONET_USERNAME and PHYSIONET_PASSWORD in the environment, or a line "
    f"'machine {PHYSIONET_HOST} login … password …' in ~/.netrc"
)


def physionet_login() -> Login | None:
    """User and password for PhysioNet from the environment, else from netrc, else ``None``.

    ``FetchError`` where one of the two variables is missing or netrc cannot be read.
    """
    user, password = os.environ.get("PHYSIONET_USERNAME"), os.environ.get("PHYSIONET_PASSWORD")
    if user and password:
        return user, password
    if user or password:
        raise FetchError(
            "Only one of PHYSIONET_USERNAME and PHYSIONET_PASSWORD is set: set both or none."
        )
    return _from_netrc(PHYSIONET_HOST)


def _from_netrc(host: str) -> Login | None:
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    if not path.is_file():
        return None
    try:
        entry = netrc.netrc(path).hosts.get(host)  # not .authenticators(): "default" is for no host
    except (netrc.NetrcParseError, OSError) as error:
        # The parser's own words may hold a piece of the file.
        raise FetchError(f"{path} cannot be read ({type(error).__name__}): correct it.") from None
    return (entry[0], entry[2]) if entry and entry[0] and entry[2] else None
