"""The card of one data set: front matter, checked strictly, and a body with fixed headings.

The headings are those of the Healthsheet (Rostamzadeh et al., FAccT 2022, arXiv 2202.13028), the
health-care form of Datasheets for Datasets, with three of their questions given a section of their
own: population and subgroups, known biases, and what the data set is not for.
"""

import re
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from qoq_lib.data.cards.policy import SHARED, Access, Share, StatedBy, limits, looser
from qoq_lib.domains import DOMAINS
from qoq_lib.runs import OneSentenceError, project_root

HEADINGS = (
    "Motivation",
    "Composition",
    "Population and subgroups",
    "Collection",
    "Preprocessing",
    "Known biases",
    "Uses",
    "What it is not for",
    "Distribution",
    "Maintenance",
)
"""The sections of every card, in order."""

SUBGROUPS = ("Age", "Sex", "Ethnicity")
"""Each is answered in a line ``- Age: ...`` of its section, if only by "not reported"."""

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Url = Annotated[str, StringConstraints(pattern=r"^https://\S+$")]
Doi = Annotated[str, StringConstraints(pattern=r"^10\.\d{4,9}/\S+$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]


def _known_domain(domain: str) -> str:
    if domain not in DOMAINS:
        raise PydanticCustomError("value", "use one of {known}", {"known": ", ".join(DOMAINS)})
    return domain


class CardError(OneSentenceError, ValueError):
    """A card is missing, incomplete or claims too much; the message names file and field."""


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Rows(_Checked):
    """Question-answer rows as CLIMB's ``Dataset_Info.md`` lists them; null is not stated."""

    total: NonNegativeInt | None
    train: NonNegativeInt | None
    test: NonNegativeInt | None

    @model_validator(mode="after")
    def _parts_add_up(self) -> "Rows":
        parts = (self.train, self.test)
        if None not in (*parts, self.total) and sum(part or 0 for part in parts) != self.total:
            raise PydanticCustomError(
                "card", "train and test do not add up to total; correct them or set both to null"
            )
        return self


class Release(_Checked):
    """What may leave the machine, and why not more."""

    weights: Share
    traces: Share
    images: Share
    reason: Annotated[str, StringConstraints(min_length=30, strip_whitespace=True)]


class FrontMatter(_Checked):
    """The front matter of a card; null means not stated by any source of the card."""

    name: Name
    title: Text
    domain: Annotated[str, AfterValidator(_known_domain)]
    covers: list[Name] = Field(default_factory=list)
    version: Text | None
    homepage: Url | None
    terms: Url | None
    citation: Text | None
    doi: Doi | None
    license: Text
    license_by: StatedBy
    access: Access
    rows: Rows
    patients: NonNegativeInt | None
    release: Release
    reviewed: date

    @model_validator(mode="after")
    def _within_the_rule(self) -> "FrontMatter":
        if (self.license == "not stated") != (self.license_by == "nobody"):
            raise PydanticCustomError(
                "card", "license_by must be 'nobody' exactly where license is 'not stated'"
            )
        if self.terms is None and (self.license_by != "nobody" or self.access != "open"):
            raise PydanticCustomError("card", "terms is null, but there are some: give their link")
        for cause, limit in limits(self.access, self.license, self.license_by):
            for what, most in zip(SHARED, limit, strict=True):
                share = getattr(self.release, what)
                if looser(share, most):
                    raise PydanticCustomError(
                        "card",
                        "release.{what} is '{share}', but {cause} allows at most '{most}'",
                        {"what": what, "share": share, "cause": cause, "most": most},
                    )
        return self


class Card(FrontMatter):
    """A whole card: its front matter, and ``sections`` from heading to Markdown text."""

    sections: dict[str, str]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The values of the rows' ``dataset`` column that the card speaks for."""
        return tuple(self.covers) or (self.name,)


def load_card(name: str, folder: Path | None = None) -> Card:
    """The card that speaks for rows of the data set ``name``, from ``data_cards`` or ``folder``.

    Raises ``CardError`` where there is none: what has no card is not shared.
    """
    cards = load_cards(folder)
    found = cards.get(name) or next((c for c in cards.values() if name in c.datasets), None)
    if found is None:
        raise CardError(
            f"No data card speaks for {name!r}: write data_cards/{name}.md, or use one of "
            f"{', '.join(cards)}."
        )
    return found


def load_cards(folder: Path | None = None) -> dict[str, Card]:
    """All cards by name, in the order of the domains; ``CardError`` at the first that is wrong."""
    root = project_root() / "data_cards" if folder is None else Path(folder)
    files = [path for path in sorted(root.glob("*.md")) if path.name != "README.md"]
    if not files:
        raise CardError(f"The folder {root} holds no data cards (*.md): check the folder.")
    order = list(DOMAINS)
    cards = sorted((_read(path) for path in files), key=lambda c: order.index(c.domain))
    spoken_for: dict[str, str] = {}
    for card in cards:
        for dataset in card.datasets:
            other = spoken_for.setdefault(dataset, card.name)
            if other != card.name:
                raise CardError(
                    f"{card.name}.md: covers names {dataset!r}, which {other}.md covers already: "
                    "let one card speak for it."
                )
    return {card.name: card for card in cards}


def _read(path: Path) -> Card:
    parts = re.fullmatch(r"---\n(.*?)\n---\n(.*)", path.read_text(encoding="utf-8"), re.DOTALL)
    if not parts:
        raise CardError(f"{path.name}: the front matter between two lines of '---' is missing.")
    values = _front_matter(path.name, parts[1])
    if values.name != path.stem:
        raise CardError(f"{path.name}: name is {values.name!r}, but must be the file's own name.")
    return Card(sections=_sections(path.name, parts[2]), **values.model_dump())


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a second ``release:`` silently replace the first; a policy must not."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the field {key!r} stands there twice")
        return super().construct_mapping(node, deep)


def _front_matter(file: str, text: str) -> FrontMatter:
    try:
        return FrontMatter.model_validate(yaml.load(text, Loader=_UniqueKeys))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise CardError(f"{file}: the front matter is not valid YAML: {reason}.") from error
    except ValidationError as error:
        raise CardError(f"{file}: {_sentence(error)}.") from error


def _sentence(error: ValidationError) -> str:
    errors = error.errors()
    # A misspelt name is also a missing one; the name that stands there tells more.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    field = ".".join(str(step) for step in first["loc"])
    if first["type"] == "card":
        return f"{field}: {first['msg']}" if field else first["msg"]
    if first["type"] == "extra_forbidden":
        return f"{field} is not a field of a card: correct its name or remove it"
    if first["type"] == "missing":
        return f"{field} is missing: state it, or write null where it is not stated"
    return f"{field or 'the front matter'} is {first['input']!r}: {first['msg']}"


def _sections(file: str, body: str) -> dict[str, str]:
    pieces = re.split(r"^## (.+)$", body, flags=re.MULTILINE)
    headings = tuple(heading.strip() for heading in pieces[1::2])
    if headings != HEADINGS:
        pairs = zip_longest(HEADINGS, headings)
        wrong = next(wanted or found for wanted, found in pairs if wanted != found)
        raise CardError(
            f"{file}: the section '## {wrong}' is missing, misplaced or one too many: the headings "
            f"are {', '.join(HEADINGS)}, in this order."
        )
    sections = {heading: text.strip() for heading, text in zip(headings, pieces[2::2], strict=True)}
    for heading, text in sections.items():
        if not text:
            raise CardError(f"{file}: the section '## {heading}' is empty: write 'Not stated.'.")
    for subgroup in SUBGROUPS:
        if not re.search(rf"^- {subgroup}: \S", sections["Population and subgroups"], re.MULTILINE):
            raise CardError(
                f"{file}: the section '## Population and subgroups' has no line '- {subgroup}: "
                "...': write 'not reported' where it is not."
            )
    return sections
