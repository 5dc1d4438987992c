"""Data cards: what each data set is, and what may be shared of it and of what is made from it.

``data_cards/<name>.md`` is front matter, checked by ``Card``, and a body with fixed headings. Read
one with ``load_card``, all with ``load_cards``; ``python -m qoq_lib.data.cards`` renders their
table. The publisher obeys ``Card.release``.
"""

from qoq_lib.data.cards.card import HEADINGS, Card, CardError, Release, Rows, load_card, load_cards
from qoq_lib.data.cards.policy import SHARED, Share

__all__ = [
    "HEADINGS",
    "SHARED",
    "Card",
    "CardError",
    "Release",
    "Rows",
    "Share",
    "load_card",
    "load_cards",
]
