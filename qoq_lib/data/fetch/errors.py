"""What can go wrong when data are fetched."""

from qoq_lib.runs import OneSentenceError


class FetchError(OneSentenceError, RuntimeError):
    """A file cannot be fetched, checked or unpacked; the message says why and what to do."""


class AccessError(FetchError):
    """The owner of the data asks for a login, a request or accepted terms first."""
