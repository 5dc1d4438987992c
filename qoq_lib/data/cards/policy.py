"""The release rule: the most that may be shared, by access, by licence and by who states it.

A card may be stricter than the rule and never looser. The rule is conservative on purpose: it
stands in for a reading of the terms by somebody who may decide, and is not legal advice.
"""

from typing import Literal

Share = Literal["open", "gated", "none"]
"""``open``: anybody; ``gated``: who accepts the source's terms on the page; ``none``: nobody."""

Access = Literal["open", "registered", "request", "credentialed"]
LicenseClass = Literal["permissive", "conditional", "no derivatives", "agreement", "other"]
StatedBy = Literal["owner", "mirror", "nobody"]

SHARED = ("weights", "traces", "images")
"""What is released; ``images`` stands for the source's own files: pictures, volumes, signals."""

Limit = tuple[Share, Share, Share]
"""The most that may be shared of ``SHARED``, in that order."""

STRICTNESS: tuple[Share, ...] = ("open", "gated", "none")

# SPDX identifiers and names of agreements; every other text, "not stated" included, is "other".
LICENSES: dict[str, LicenseClass] = {
    "Apache-2.0": "permissive",
    "CC0-1.0": "permissive",
    "CC-BY-3.0": "permissive",
    "CC-BY-4.0": "permissive",
    "MIT": "permissive",
    "AGPL-3.0-only": "conditional",
    "CC-BY-NC-4.0": "conditional",
    "CC-BY-NC-SA-4.0": "conditional",
    "CC-BY-NC-ND-4.0": "no derivatives",
    "PhysioNet Credentialed Health Data License 1.5.0": "agreement",
    "PhysioNet Restricted Health Data License 1.5.0": "agreement",
    "Stanford University Dataset Research Use Agreement": "agreement",
}

BY_ACCESS: dict[Access, tuple[str, Limit]] = {
    "open": (
        "anybody may download; at most a free account of the platform is needed",
        ("open", "open", "open"),
    ),
    "registered": (
        "an account, and acceptance of the source's own agreement or competition rules",
        ("gated", "gated", "none"),
    ),
    "request": (
        "the owner decides on each request",
        ("gated", "none", "none"),
    ),
    "credentialed": (
        "a verified identity, training in research with human subjects, a signed agreement",
        ("none", "none", "none"),
    ),
}

BY_LICENSE: dict[LicenseClass, tuple[str, Limit]] = {
    "permissive": ("sharing and adapting, at most with attribution", ("open", "open", "open")),
    "conditional": (
        "sharing under conditions: non-commercial, share-alike, copyleft",
        ("gated", "gated", "gated"),
    ),
    "no derivatives": ("nothing adapted may be shared", ("gated", "none", "none")),
    "agreement": (
        "each user agrees for themselves not to pass the data on",
        ("gated", "none", "none"),
    ),
    "other": (
        "other terms, such as competition rules, or nothing stated",
        ("gated", "gated", "none"),
    ),
}

BY_STATEMENT: dict[StatedBy, tuple[str, Limit]] = {
    "owner": (
        "by who collected the data, or the archive it was deposited in",
        ("open", "open", "open"),
    ),
    "mirror": (
        "by who uploaded or compiled data of others, or by whom is not known",
        ("gated", "gated", "none"),
    ),
    "nobody": ("no licence is stated", ("gated", "gated", "none")),
}


def license_class(license: str) -> LicenseClass:
    """The class of an SPDX identifier or agreement; ``"other"`` for any text that is not known."""
    return LICENSES.get(license, "other")


def is_spdx(license: str) -> bool:
    """Whether ``license`` is one of the SPDX identifiers known here."""
    return license_class(license) in ("permissive", "conditional", "no derivatives")


def limits(access: Access, license: str, stated_by: StatedBy) -> list[tuple[str, Limit]]:
    """What bounds a release: each reason in words, with its limit."""
    kind = license_class(license)
    return [
        (f"access {access!r}", BY_ACCESS[access][1]),
        (f"the licence {license!r} ({kind})", BY_LICENSE[kind][1]),
        (f"a licence stated by {stated_by!r}", BY_STATEMENT[stated_by][1]),
    ]


def looser(share: Share, limit: Share) -> bool:
    """Whether ``share`` gives more away than ``limit`` allows."""
    return STRICTNESS.index(share) < STRICTNESS.index(limit)
