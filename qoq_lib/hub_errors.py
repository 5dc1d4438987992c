"""What the Hugging Face Hub can refuse, told apart: gated, missing, offline, token, busy, conflict.

At the bottom of the package, since models are fetched from the Hub, and releases published to it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # the HTTP library of this version of the client

from qoq_lib.runs import OneSentenceError


class HubError(OneSentenceError, RuntimeError):
    """The Hub did not do what was asked; the message says what, why and what to do."""


class MissingError(HubError):
    """There is no such repository, revision or file, or none that this token may see."""


class GatedError(HubError):
    """The repository exists and asks for accepted terms first."""


class OfflineError(HubError):
    """The Hub cannot be reached, or HF_HUB_OFFLINE forbids to try."""


class TokenError(HubError):
    """There is no token, it is not valid, or it may not do this."""


class BusyError(HubError):
    """The Hub answered with a rate limit or with an error of its own."""


class ConflictError(HubError):
    """What is on the Hub is not what was expected there; nothing was changed."""


_RAISED = (httpx.HTTPError, OSError, RuntimeError, ValueError)
_TELLING = (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    HFValidationError,
    httpx.TransportError,
)


@contextmanager
def explained(subject: str) -> Iterator[None]:
    """Turn what the Hub's client libraries raise inside the block into a ``HubError``.

    Args:
        subject: what was asked for, as the sentence names it: ``"org/name (model)"``.

    Errors that were not caused by the Hub pass through.
    """
    try:
        yield
    except HubError:
        raise
    except _RAISED as error:
        if _telling(error) is None:
            raise
        raise explain(error, subject) from error


def explain(error: Exception, subject: str) -> HubError:
    """The ``HubError`` for an error of ``huggingface_hub``, or of a library that calls it."""
    cause = _telling(error) or error
    match cause:
        case OfflineModeIsEnabled():
            return OfflineError(
                f"HF_HUB_OFFLINE is set, so the Hub was not asked for {subject}: unset it."
            )
        case httpx.TransportError():
            return OfflineError(
                f"The connection to the Hub at {constants.ENDPOINT} failed for {subject} "
                f"({type(cause).__name__}): check the network and run this again."
            )
        case LocalTokenNotFoundError():
            return TokenError(
                f"No token of the Hub was found for {subject}: run 'hf auth login' or set HF_TOKEN."
            )
        case HFValidationError():
            return MissingError(f"{subject} cannot be on the Hub: a name there is 'owner/name'.")
        case HfHubHTTPError():
            return _of_reply(cause, subject)
    return HubError(f"The Hub's client failed for {subject}: {_one_line(str(cause))}.")


def _of_reply(error: HfHubHTTPError, subject: str) -> HubError:
    status = error.response.status_code
    match error:
        case GatedRepoError():  # a RepositoryNotFoundError too
            return GatedError(
                f"{subject} is gated: accept its terms on its page on the Hub with your account, "
                "then log in with that account's token ('hf auth login' or HF_TOKEN)."
            )
        case RevisionNotFoundError():
            return MissingError(f"{subject} has no such revision: check the branch, tag or commit.")
        case RemoteEntryNotFoundError():
            return MissingError(f"{subject} lacks a file that was asked for: {_path(error)}.")
        case RepositoryNotFoundError():
            return MissingError(
                f"{subject} is not on the Hub, or is private and not for this token: check the "
                "name, and log in ('hf auth login' or HF_TOKEN) where it is private."
            )
    if status == 401:
        return TokenError(
            f"The Hub does not accept the token given for {subject}: make a new one and log in "
            "with it ('hf auth login' or HF_TOKEN)."
        )
    if status == 403:
        return TokenError(
            f"The token may not do this to {subject}: use one with write access to it "
            "('hf auth login' or HF_TOKEN)."
        )
    if status in (409, 412):
        return ConflictError(
            f"Somebody else changed {subject} at the same time: look at its page and run this "
            "again."
        )
    if status == 429 or status >= 500:
        return BusyError(f"The Hub is busy ({status}) for {subject}: wait and run this again.")
    reason = _one_line(error.server_message or str(error))
    return HubError(f"The Hub refused {subject} with status {status}: {reason}.")


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _path(error: HfHubHTTPError) -> str:
    return str(error.request.url.path).strip("/") if error.request is not None else "not named"


def _telling(error: BaseException | None) -> Exception | None:
    """The Hub's own error: ``error``, or the first among what caused it."""
    while error is not None and not isinstance(error, _TELLING):
        error = error.__cause__ or error.__context__
    return error
