"""Magnetic resonance: two collections of single brain slices, sorted into folders by diagnosis.

Neither names its patients, so each file counts as one; copies of a file move to one side together.
"""

from qoq_lib.data.sources.folder_per_class import FolderPerClass
from qoq_lib.data.sources.source import Source

BRAIN_TUMOR = Source(
    name="brain_tumor",
    domain="mri",
    folder="mri/brain_tumor",
    license="MIT",
    options=("glioma", "meningioma", "pituitary tumor", "no tumor"),
    readers=(  # {Training,Testing}/<class>/<file>: the folders are the official split
        FolderPerClass(
            {
                "glioma_tumor": "glioma",
                "meningioma_tumor": "meningioma",
                "pituitary_tumor": "pituitary tumor",
                "no_tumor": "no tumor",
            }
        ),
    ),
)

_BRAIN_TUMOR_2 = Source(
    name="brain_tumor_2",
    domain="mri",
    folder="mri/brain_tumor_2",
    license="not stated",
    options=("tumor", "no tumor"),
    # The archive holds both folders a second time, below brain_tumor_dataset/.
    readers=(FolderPerClass({"yes": "tumor", "no": "no tumor"}, files="*/*"),),
)

SOURCES: tuple[Source, ...] = (BRAIN_TUMOR, _BRAIN_TUMOR_2)
"""The sources of the domain."""
