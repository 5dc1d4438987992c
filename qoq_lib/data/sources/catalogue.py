"""Every source of the paper in one tuple, and how a user names the ones that are wanted."""

from difflib import get_close_matches

from qoq_lib.data.sources import (
    chest_xray,
    ct,
    dermoscopy,
    ecg,
    fundus,
    mammography,
    mri,
    multimodal,
    pathology,
    ultrasound,
)
from qoq_lib.data.sources.source import Source, SourceError

_MODULES = (
    chest_xray,
    mammography,
    dermoscopy,
    ct,
    fundus,
    ultrasound,
    mri,
    pathology,
    ecg,
    multimodal,
)
PAPER_SOURCES: dict[str, Source] = {
    source.name: source for module in _MODULES for source in module.SOURCES
}
"""By name, in the order of the domains: 31 of one domain, and both tasks of MIMIC-IV."""


NOT_OF_THE_PAPER = ("phantom", "kit", "folder")


def choose_sources(names: str, domain: str | None = None) -> tuple[Source, ...]:
    """The paper's sources called ``names``, or ``"all"``, of ``domain`` alone where it is given.

    ``names`` are separated by commas; one of ``NOT_OF_THE_PAPER`` by itself chooses none.
    ``SourceError`` for an unknown name, one of another domain, or where nothing is left.
    """
    if names in NOT_OF_THE_PAPER:
        return ()
    wanted = [name.strip() for name in names.split(",")]
    wanted = list(PAPER_SOURCES) if wanted == ["all"] else wanted
    for name in wanted:
        if name not in PAPER_SOURCES:
            near = get_close_matches(name, PAPER_SOURCES, n=1, cutoff=0.5)
            raise SourceError(
                f"Unknown data set {name!r}: "
                + (f"did you mean {near[0]!r}? " if near else "")
                + f"Use {', '.join(NOT_OF_THE_PAPER)}, all, or names from "
                f"{', '.join(PAPER_SOURCES)}."
            )
    chosen = [PAPER_SOURCES[name] for name in dict.fromkeys(wanted)]
    found = tuple(source for source in chosen if domain in (None, source.domain))
    if not found:
        raise SourceError(
            f"None of the data sets {names!r} is of the domain {domain!r}: their domains are "
            f"{', '.join(dict.fromkeys(source.domain for source in chosen)) or 'none'}."
        )
    return found
