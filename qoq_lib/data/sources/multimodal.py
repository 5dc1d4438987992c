"""MIMIC-IV: how long a hospital stay lasts and whether it ends early, from text, ECG and X-ray.

What a stay holds, and why nothing of it is from after 48 hours, stands in ``hospital_stays``. The
same patients are in MIMIC-CXR, so all three sources share a cohort and are split as one.
"""

from collections.abc import Callable

import pandas as pd

from qoq_lib.data.prompts import Task
from qoq_lib.data.sources.hospital_stays import WINDOW, HospitalStays
from qoq_lib.data.sources.source import Source
from qoq_lib.domains import MULTIMODAL

_DATA_BASES = {
    "mimic_iv": "multimodal/mimic_iv",
    "mimic_iv_ecg": "ecg/mimic_iv_ecg",
    "mimic_cxr": "chest_xray/mimic_cxr",
}

STAYS = ("0-4 days", "5-8 days", "9-12 days", "more than 12 days")
ENDINGS = ("death or hospice", "neither")


def length_of_stay(stays: pd.DataFrame) -> pd.Series:
    """The bin of completed days from admission to discharge; missing where these are reversed."""
    days = (stays["dischtime"] - stays["admittime"]) // pd.Timedelta(days=1)
    return pd.cut(days, [-1, 4, 8, 12, float("inf")], labels=STAYS)


def early_ending(stays: pd.DataFrame) -> pd.Series:
    """Whether the patient died or left for a hospice within 48 hours of admission."""
    until = stays["admittime"] + WINDOW
    died = stays["deathtime"] <= until
    hospice = (stays["discharge_location"] == "HOSPICE") & (stays["dischtime"] <= until)
    return (died | hospice).map({True: ENDINGS[0], False: ENDINGS[1]})


def _mimic_iv(
    task: Task, options: tuple[str, ...], outcome: Callable[[pd.DataFrame], pd.Series]
) -> Source:
    return Source(
        name=f"mimic_iv_{task}",
        domain=MULTIMODAL,
        license="PhysioNet Credentialed Health Data License 1.5.0",
        task=task,
        options=options,
        cohort="mimic",
        parts=_DATA_BASES,
        readers=(HospitalStays(outcome),),
    )


SOURCES: tuple[Source, ...] = (
    _mimic_iv("length_of_stay", STAYS, length_of_stay),
    _mimic_iv("mortality", ENDINGS, early_ending),
)
"""Both tasks of the paper; the card ``mimic_iv`` speaks for them."""
