"""Pathology: tiles of lung and colon by diagnosis, and breast slides with a class per pixel."""

from qoq_lib.data.sources.folder_per_class import FolderPerClass
from qoq_lib.data.sources.source import Source
from qoq_lib.data.sources.tissue_patches import TissuePatches

LUNG = {
    "lung_aca": "lung adenocarcinoma",
    "lung_scc": "lung squamous cell carcinoma",
    "lung_n": "benign lung tissue",
}
_COLON = {
    "colon_aca": "colon adenocarcinoma",
    "colon_n": "benign colonic tissue",
}

# The tiles are turned and mirrored copies of fewer originals, and nothing on disk says which of
# which: only exact copies can be kept together here (see "Known biases" of its card).
_LC25000 = Source(
    name="lc25000",
    domain="pathology",
    folder="pathology/lc25000",
    license="not stated",
    options=(*LUNG.values(), *_COLON.values()),
    readers=(FolderPerClass({**LUNG, **_COLON}),),
)

_BCSS = Source(
    name="bcss",
    domain="pathology",
    folder="pathology/bcss",
    license="CC0-1.0",
    task="tissue",
    options=("tumor", "stroma", "inflammatory infiltrate", "necrosis"),
    readers=(
        TissuePatches(
            # Codes of the owners' meta/gtruth_codes.tsv, grouped as is usual: carcinoma in situ and
            # in vessels is tumour, plasma cells are inflammatory. 0 is outside the region.
            tissues={
                "tumor": (1, 19, 20),
                "stroma": (2,),
                "inflammatory infiltrate": (3, 10, 11),
                "necrosis": (4,),
            },
            patient=len("TCGA-A1-A0SK"),
            site=slice(len("TCGA-"), len("TCGA-A1")),
            test_sites=frozenset(("OL", "LL", "E2", "EW", "GM", "S3")),
        ),
    ),
)

SOURCES: tuple[Source, ...] = (_LC25000, _BCSS)
"""The sources of the domain."""
