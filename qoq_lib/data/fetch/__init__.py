"""Fetching the data sets of the paper: open ones by program, the others by a table of what to do.

``fetch`` brings what is missing, ``access_table`` says how each data set is had, ``ready_names``
which of them can be assembled. How a single one
is had stands in ``registry``, one entry each.
"""

from qoq_lib.data.fetch.errors import AccessError, FetchError
from qoq_lib.data.fetch.fetching import Fetched, access_table, fetch, ready_names

__all__ = ["AccessError", "FetchError", "Fetched", "access_table", "fetch", "ready_names"]
