"""The nine clinical domains of QoQ-Med (arXiv 2506.00711, section 3.2), in the paper's order.

*Domain* always means one of these nine; a *data set* is one source inside a domain. Rows that join
several of them (an ECG and a chest X-ray of one hospital stay) stand beside the nine as
``MULTIMODAL``.
"""

from dataclasses import dataclass
from typing import Literal

Modality = Literal["image", "volume", "video", "ecg", "mixed"]
MULTIMODAL = "multimodal"


@dataclass(frozen=True)
class Domain:
    """One clinical domain: its key in tables, its title in figures, its modality and its colour.

    ``colour`` stays apart from the others for colour-blind readers, too: Paul Tol's "muted" scheme
    (https://personal.sron.nl/~pault/), but for a lighter blue and a nearly black ``MULTIMODAL``.
    Some are pale on white, so a figure writes their names beside them and no text in them.
    """

    name: str
    title: str
    modality: Modality
    colour: str


DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (
        Domain("chest_xray", "Chest X-ray", "image", "#6677CC"),
        Domain("mammography", "Mammography", "image", "#CC6677"),
        Domain("dermoscopy", "Dermoscopy", "image", "#DDCC77"),
        Domain("ct", "CT", "volume", "#117733"),
        Domain("fundus", "Fundus", "image", "#88CCEE"),
        Domain("ultrasound", "Ultrasound", "video", "#AA4499"),
        Domain("mri", "MRI", "volume", "#44AA99"),
        Domain("pathology", "Pathology", "image", "#882255"),
        Domain("ecg", "ECG", "ecg", "#999933"),
        Domain(MULTIMODAL, "Multimodal", "mixed", "#222222"),
    )
}
"""The nine in the paper's order, then ``MULTIMODAL``: every value of a row's ``domain``."""

DOMAIN_NAMES: tuple[str, ...] = tuple(name for name in DOMAINS if name != MULTIMODAL)
PALETTE: dict[str, str] = {name: domain.colour for name, domain in DOMAINS.items()}


def domain_order(names: list[str]) -> list[str]:
    """Sort ``names`` as ``DOMAINS`` is; unknown ones are refused with ``ValueError``."""
    unknown = sorted(set(names) - set(DOMAINS))
    if unknown:
        raise ValueError(
            f"Unknown clinical domain {unknown[0]!r}: use one of {', '.join(DOMAINS)}."
        )
    return [name for name in DOMAINS if name in set(names)]
