"""The phantom: nine clinical domains drawn by code from a seed, as assembled rows.

It stands in for patients' data in the demo and the tests. It shows what each domain looks like and
how its questions are asked; it says nothing about medicine, and no score on it does.
"""

from qoq_lib.data.phantom.catalog import FINDINGS, Finding, options, patterns, sentences, words
from qoq_lib.data.phantom.images import draw
from qoq_lib.data.phantom.plan import PhantomError
from qoq_lib.data.phantom.rows import make_phantom

__all__ = [
    "FINDINGS",
    "Finding",
    "PhantomError",
    "draw",
    "make_phantom",
    "options",
    "patterns",
    "sentences",
    "words",
]
