"""What a model or a trace set was made from: sources, licences and terms, from the data cards."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from qoq_lib.data.cards import Card
from qoq_lib.publishing.cards.markdown import section, table
from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.publishing.policy import Verdict, gate_text, policy_table
from qoq_lib.publishing.record import Rows

TERMS_FILE = "LICENSE.md"


@dataclass(frozen=True)
class License:
    """A licence in the words of a card's front matter; ``name`` and ``link`` where it is other."""

    id: str
    name: str | None = None
    link: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The front matter's three fields."""
        return {"license": self.id, "license_name": self.name, "license_link": self.link}

    def __str__(self) -> str:
        return f"{self.name} ({self.link})" if self.name else self.id


APACHE = License("apache-2.0")
_QWEN = "https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/blob/main/LICENSE"
BASE_LICENSES = {
    "tiny": APACHE,  # random weights made by this package
    "Qwen/Qwen2.5-VL-3B-Instruct": License("other", "qwen-research", _QWEN),
    "Qwen/Qwen2.5-VL-7B-Instruct": APACHE,
    "Qwen/Qwen2.5-VL-32B-Instruct": APACHE,
}


UNCONDITIONAL = ("Apache-2.0", "CC0-1.0", "MIT")
"""Licences of data that ask for nothing that Apache-2.0 does not; CC-BY, say, must stay named."""


def base_license(base_model: str) -> License:
    """The licence of a base; ``ReleaseError`` where it is not known here."""
    if base_model not in BASE_LICENSES:
        raise ReleaseError(
            f"The licence of the base {base_model!r} is not known here: add it to BASE_LICENSES "
            "in qoq_lib/publishing/cards/data.py."
        )
    return BASE_LICENSES[base_model]


def joint_license(own: License, verdicts: Iterable[Verdict]) -> License:
    """``own`` where no data set in the release adds a condition, else that of ``TERMS_FILE``."""
    released = [one for one in verdicts if one.allowed]
    free = all(one.share == "open" and one.license in UNCONDITIONAL for one in released)
    return own if free else License("other", "terms-of-base-and-data", TERMS_FILE)


def terms_file(own: License, verdicts: Iterable[Verdict]) -> dict[str, str]:
    """``TERMS_FILE`` by its name, where ``joint_license`` refers to it: whose terms apply."""
    verdicts = tuple(verdicts)
    if joint_license(own, verdicts).link != TERMS_FILE:
        return {}
    released = [one for one in verdicts if one.allowed]
    lines = {f"- {one.dataset}: {one.license} ({one.terms or 'no link'})" for one in released}
    head = ["# Terms", "", f"What this package and its base add: {own}.", "", "The data:", ""]
    return {TERMS_FILE: "\n".join([*head, *sorted(lines), ""])}


def gate_fields(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Front matter of a gated repository; empty where there is no gate."""
    prompt = gate_text(verdicts)
    if not prompt:
        return {}
    return {
        "extra_gated_heading": "Accept the terms below to use this",
        "extra_gated_prompt": prompt,
        "extra_gated_fields": {
            "Name": "text",
            "Affiliation": "text",
            "I accept the terms above": "checkbox",
        },
        "extra_gated_button_content": "Accept and ask for access",
    }


def data_section(cards: Iterable[Card], rows: Rows) -> str:
    """The data sets with their licences and rows, and what is known to be wrong with them.

    Args:
        cards: of the data sets; the same one may come again.
        rows: by data set, and by split or whatever else they are counted in.
    """
    own = {card.name: card for card in cards}
    lines = {name: _card_row(card, rows) for name, card in own.items()}
    biases = [f"**{card.title}**\n\n{card.sections['Known biases']}" for card in own.values()]
    return section(
        "Data",
        "Rows are those of this run; patients are the source's own count. The cards in "
        "`data_cards/` say whom each data set shows and what it is not for.",
        table(pd.DataFrame.from_dict(lines, orient="index"), "data set"),
        "### Known biases of the data",
        *biases,
    )


def _card_row(card: Card, rows: Rows) -> dict[str, Any]:
    counted = [counts for name, counts in rows.items() if name in (card.name, *card.datasets)]
    names = dict.fromkeys(name for counts in rows.values() for name in counts)
    return {
        "title": f"[{card.title}](data_cards/{card.name}.md)",
        "domain": card.domain,
        "licence": f"[{card.license}]({card.terms})" if card.terms else card.license,
        "access": card.access,
        "patients": card.patients,
        **{name: sum(counts.get(name, 0) for counts in counted) for name in names},
        "citation": card.citation,
    }


def labels_section(labels: Mapping[str, list[str]]) -> str:
    """The labels that the questions of each data set ask for."""
    lines = {name: {"labels": names} for name, names in sorted(labels.items())}
    return section("Labels", table(pd.DataFrame.from_dict(lines, orient="index"), "data set"))


def release_section(verdicts: tuple[Verdict, ...]) -> str:
    """What the data cards allow to be released, and why."""
    return section(
        "Release policy",
        "`open`: for anybody; `gated`: for who accepts the source's terms; `none`: stays where it "
        "was made.",
        table(policy_table(verdicts), "data set"),
    )


DRAWN = (
    "**Part of the data are drawings (the phantom), not patients: nothing here about them says "
    "anything about medicine.**"
)
NOT_A_DEVICE = (
    "**This is not a medical device.** It was made for research on methods. It must not be used "
    "for diagnosis, triage, treatment or any other decision about a person, nor to find out who "
    "somebody in the data is. Nobody has tested it in clinical use."
)


def limits_section(cards: Iterable[Card], *limits: str) -> str:
    """What a model or its traces are not for, the ``limits`` as a list, and drawings as such."""
    drawn = any(card.name == "phantom" for card in cards)
    listed = "\n".join(f"- {limit}" for limit in limits)
    return section("Limits, and what it is not for", NOT_A_DEVICE, DRAWN if drawn else "", listed)
