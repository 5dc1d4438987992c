"""``data_cards/README.md``: the release rule and the table of all cards, rendered from the code.

What stands between ``<!-- name -->`` and ``<!-- /name -->`` is rendered; the rest is written by
hand.
"""

import re
from collections.abc import Iterable, Mapping

from qoq_lib.data.cards.card import Card, CardError
from qoq_lib.data.cards.policy import (
    BY_ACCESS,
    BY_LICENSE,
    BY_STATEMENT,
    LICENSES,
    SHARED,
    Limit,
)


def render(readme: str, cards: Mapping[str, Card]) -> str:
    """``readme`` with its rendered parts renewed; ``CardError`` where a marker is missing."""
    parts = {"rule": rule(), "cards": table(cards.values()), "summary": summary(cards.values())}
    for name, text in parts.items():
        readme, found = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}",  # type: ignore[misc]
            readme,
            flags=re.DOTALL,
        )
        if found != 1:
            raise CardError(
                f"README.md: the markers <!-- {name} --> and <!-- /{name} --> must stand there "
                f"once, but were found {found} times."
            )
    return readme


def table(cards: Iterable[Card]) -> str:
    """One line per card: domain, access, licence, size, and what may be shared."""
    head = ("data set", "domain", "access", "licence", "rows", "patients", *SHARED)
    lines = (
        (
            f"[{card.title}]({card.name}.md)",
            card.domain,
            card.access,
            _license(card),
            _count(card.rows.total),
            _count(card.patients),
            *(getattr(card.release, what) for what in SHARED),
        )
        for card in cards
    )
    return _markdown(head, lines)


def summary(cards: Iterable[Card]) -> str:
    """How many cards open, gate or withhold each kind of thing."""
    held = list(cards)
    lines = (
        (what, *(str(sum(getattr(c.release, what) == s for c in held)) for s in _SHARES))
        for what in SHARED
    )
    return _markdown((f"{len(held)} cards", *_SHARES), lines)


def rule() -> str:
    """The three tables of the release rule, as ``policy.py`` applies them."""
    known = {
        kind: ", ".join(f"`{spdx}`" for spdx, of in LICENSES.items() if of == kind) or "all others"
        for kind in BY_LICENSE
    }
    return "\n\n".join(
        (
            _limits("access", BY_ACCESS.items()),
            _limits(
                "licence",
                ((kind, (f"{text}: {known[kind]}", most)) for kind, (text, most) in _LICENSED),
            ),
            _limits("licence stated", BY_STATEMENT.items()),
        )
    )


_SHARES = ("open", "gated", "none")
_LICENSED = tuple(BY_LICENSE.items())


def _limits(title: str, rows: Iterable[tuple[str, tuple[str, Limit]]]) -> str:
    lines = ((f"`{key}`", meaning, *most) for key, (meaning, most) in rows)
    return _markdown((title, "means", *(f"{what} at most" for what in SHARED)), lines)


def _markdown(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    names = list(head)
    rows = [names, ["---"] * len(names), *(list(line) for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _license(card: Card) -> str:
    text = f"[{card.license}]({card.terms})" if card.terms else card.license
    return f"{text}, says a mirror" if card.license_by == "mirror" else text


def _count(number: int | None) -> str:
    return "not stated" if number is None else f"{number:,}"
