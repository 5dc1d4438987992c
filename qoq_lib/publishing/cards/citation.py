"""The citation that every card ends with, from ``CITATION.cff``."""

from typing import Any

import yaml

from qoq_lib.publishing.cards.markdown import fence, section
from qoq_lib.runs import project_root


def citation_section() -> str:
    """The paper that the package reproduces, as BibTeX."""
    text = (project_root() / "CITATION.cff").read_text(encoding="utf-8")
    paper = yaml.safe_load(text)["preferred-citation"]
    return section("Citation", fence(_bibtex(paper), "bibtex"))


def _bibtex(paper: dict[str, Any]) -> str:
    authors = " and ".join(
        f"{one['family-names']}, {one['given-names']}" for one in paper["authors"]
    )
    key = f"{paper['authors'][0]['family-names'].lower()}{paper['year']}"
    fields = {"title": paper["title"], "author": authors, "year": paper["year"]}
    fields |= {"journal": paper["journal"], "url": paper["url"]}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@article{{{key},", *lines, "}"])
