"""``python -m qoq_lib.data.cards``: check all cards and render ``data_cards/README.md``."""

import argparse
import sys
from pathlib import Path

from qoq_lib.data.cards.card import CardError, load_cards
from qoq_lib.data.cards.croissant import export
from qoq_lib.data.cards.table import render
from qoq_lib.runs import project_root, write_text_atomic


def main() -> None:
    """Render the table; with ``--croissant FOLDER`` write JSON-LD there, too."""
    parser = argparse.ArgumentParser(prog="python -m qoq_lib.data.cards", description=__doc__)
    parser.add_argument(
        "--croissant", type=Path, metavar="FOLDER", help="also write <name>.json per card"
    )
    folder = parser.parse_args().croissant
    cards = load_cards()
    readme = project_root() / "data_cards" / "README.md"
    write_text_atomic(readme, render(readme.read_text(encoding="utf-8"), cards))
    print(f"{len(cards)} cards are valid; their table is in {readme}.")
    if folder is not None:
        print(f"{len(export(cards.values(), folder))} Croissant files are in {folder}.")


if __name__ == "__main__":
    try:
        main()
    except CardError as error:
        sys.exit(str(error))
