"""Cards as Croissant 1.0 JSON-LD (https://docs.mlcommons.org/croissant), with its RAI vocabulary.

Croissant describes a data set to machines; the files themselves stay with their owners, so the
export names no distribution. It is built and checked by ``mlcroissant``, offline.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qoq_lib.data.cards.card import Card, CardError
from qoq_lib.data.cards.policy import is_spdx
from qoq_lib.runs import write_text_atomic


def export(cards: Iterable[Card], folder: Path) -> list[Path]:
    """Write ``<name>.json`` for every card into ``folder``; ``CardError`` without mlcroissant."""
    documents = {card.name: to_croissant(card) for card in cards}
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_text_atomic(folder / f"{name}.json", json.dumps(document, indent=2) + "\n")
        for name, document in documents.items()
    ]


def to_croissant(card: Card) -> dict[str, Any]:
    """``card`` as a JSON-LD document; ``CardError`` without mlcroissant or where it is invalid."""
    try:
        import mlcroissant as mlc
    except ImportError as error:
        raise CardError(
            "Croissant needs the package mlcroissant: run pip install -e '.[cards]'."
        ) from error
    said = card.sections
    try:
        metadata = mlc.Metadata(
            name=card.name,
            description=f"{card.title}. {said['Composition']}",
            url=card.homepage,
            license=[_license(card)],
            version=card.version,
            cite_as=card.citation,
            same_as=[f"https://doi.org/{card.doi}"] if card.doi else None,
            conforms_to=["http://mlcommons.org/croissant/1.0"],
            data_collection=said["Collection"],
            data_preprocessing_protocol=[said["Preprocessing"]],
            data_biases=[said["Known biases"]],
            data_use_cases=[said["Uses"]],
            data_limitations=[said["What it is not for"]],
            personal_sensitive_information=[said["Population and subgroups"]],
            data_release_maintenance_plan=f"{card.release.reason} {said['Maintenance']}",
        )
    except mlc.ValidationError as error:
        raise CardError(f"{card.name}.md is no valid Croissant: {error}") from error
    document: dict[str, Any] = metadata.to_json()
    return document


def _license(card: Card) -> str:
    known = is_spdx(card.license)
    return f"https://spdx.org/licenses/{card.license}.html" if known else card.license
