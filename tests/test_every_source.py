"""All 32 data sets of the paper, each in a miniature of its own layout with two spoiled records."""

import importlib
import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from layouts import (
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
from layouts.volumes import HAS_VIDEOS
from miniatures import rows_of

from qoq_lib.data.assemble import assemble_sources
from qoq_lib.data.cards import Card, load_cards
from qoq_lib.data.example import check_rows
from qoq_lib.data.sources.source import Source, SourceError
from qoq_lib.data.storage import AssemblyError

HAS_VOLUMES = all(map(importlib.util.find_spec, ("nibabel", "SimpleITK")))
HAS_SPREADSHEETS = importlib.util.find_spec("openpyxl") is not None


@dataclass(frozen=True)
class Miniature:
    """A data set: the module of its sources, the writer of its layout, and what is spoiled.

    ``in_folder`` says whether the writer takes the source's own folder instead of the data root.
    A tree of class folders lists nothing, so that no file of it can be missing, but a class can.
    """

    module: str
    write: Callable[[Path], Any]
    in_folder: bool = False
    readable: bool = True
    name: str = ""
    a_class: str = ""  # the folder of one, where there is no table

    @property
    def dataset(self) -> str:
        return self.name or self.write.__name__


def _challenge(name: str, first: str) -> Miniature:
    return Miniature("ecg", lambda root: ecg.challenge(root, name, first), name=name)


MINIATURES = (
    Miniature("chest_xray", chest_xray.mimic_cxr),
    Miniature("chest_xray", chest_xray.chexpert),
    Miniature("chest_xray", chest_xray.vindr_cxr),
    Miniature("chest_xray", chest_xray.covid19, a_class="ValData/COVID-19"),
    Miniature("chest_xray", chest_xray.coronahack),
    Miniature("mammography", mammography.vindr_mammo),
    Miniature("mammography", mammography.cbis_ddsm),
    Miniature("mammography", mammography.cmmd, readable=HAS_SPREADSHEETS),
    Miniature("dermoscopy", dermoscopy.isic2020),
    Miniature("dermoscopy", dermoscopy.ham10000),
    Miniature("dermoscopy", dermoscopy.pad_ufes_20),
    Miniature("fundus", fundus.aptos2019, in_folder=True),
    Miniature("fundus", fundus.messidor2, in_folder=True),
    Miniature("fundus", fundus.jichi, in_folder=True),
    Miniature("ct", ct.lndb, in_folder=True, readable=HAS_VOLUMES),
    Miniature("ct", ct.inspect, in_folder=True, readable=HAS_VOLUMES),
    Miniature("ct", ct.kits23, in_folder=True, readable=HAS_VOLUMES),
    Miniature("ct", ct.hemorrhage, in_folder=True),
    Miniature("ct", ct.rspect, in_folder=True),
    Miniature("ultrasound", ultrasound.busi, in_folder=True),
    Miniature("ultrasound", ultrasound.covid_blues, in_folder=True, readable=HAS_VIDEOS),
    Miniature("ultrasound", ultrasound.covid_us, in_folder=True, readable=HAS_VIDEOS),
    Miniature("ultrasound", ultrasound.echonet_dynamic, in_folder=True, readable=HAS_VIDEOS),
    Miniature("mri", mri.brain_tumor, a_class="*/pituitary_tumor"),
    Miniature("mri", mri.brain_tumor_2, a_class="no"),
    Miniature("pathology", pathology.lc25000, a_class="*/*/colon_n"),
    Miniature("pathology", pathology.bcss),
    Miniature("ecg", ecg.ptb_xl),
    _challenge("chapman_shaoxing", "JS00001"),
    _challenge("georgia", "E00001"),
    _challenge("cpsc2018", "A0001"),
    Miniature("multimodal", multimodal.mimic_iv),
)
DAMAGED = ("cannot be read", "where its header says", "does not say which breast")
MISSING = ("missing", "has no film", "No such file")


@cache
def cards() -> dict[str, Card]:
    """The cards of the project, read once."""
    return load_cards()


def sources_of(miniature: Miniature) -> list[Source]:
    """The sources of a data set: one, and two of MIMIC-IV."""
    module = importlib.import_module(f"qoq_lib.data.sources.{miniature.module}")
    covered = cards()[miniature.dataset].datasets
    return [source for source in module.SOURCES if source.name in covered]


def on_disk(miniature: Miniature, root: Path) -> list[Source]:
    """The sources of a data set, whose miniature is written below ``root``."""
    if not miniature.readable:
        pytest.skip("its reader is in the extra 'data'")
    sources = sources_of(miniature)
    miniature.write(root / sources[0].folder if miniature.in_folder else root)
    return sources


def test_they_are_the_data_sets_that_have_a_card() -> None:
    assert len(MINIATURES) == 32
    assert {one.dataset for one in MINIATURES} == set(cards()) - {"phantom"}


@pytest.mark.parametrize("miniature", MINIATURES, ids=lambda one: one.dataset)
def test_a_source_agrees_with_its_card(miniature: Miniature) -> None:
    card = cards()[miniature.dataset]
    sources = sources_of(miniature)
    assert len(sources) == len(card.datasets)
    for source in sources:
        assert (source.domain, source.license) == (card.domain, card.license)
        # Three data bases make MIMIC-IV, each in a folder of its own.
        assert source.folder.startswith(f"{card.domain}/{card.name}") or card.name == "mimic_iv"


@pytest.mark.parametrize("miniature", MINIATURES, ids=lambda one: one.dataset)
def test_what_is_damaged_or_missing_is_refused_by_name(
    tmp_path: Path, miniature: Miniature
) -> None:
    sources = on_disk(miniature, tmp_path)
    assembly = assemble_sources(sources, tmp_path, tmp_path / "out", name="t", on_error="skip")
    rows = rows_of(tmp_path / "out")
    check_rows(rows)
    assert len({row["patient_id"] for row in rows}) >= 2
    answers = {answer for row in rows for answer in row["answers"]}
    assert len(answers) >= 2 or sources[0].task == "grounding"
    reasons = [one.reason for one in assembly.refused]
    assert all(str(tmp_path) in reason for reason in reasons)  # the file, by its path
    assert any(words in reason for reason in reasons for words in DAMAGED)
    if sources[0].missing == "skip":  # declared to list more than is there
        assert sum(assembly.not_here.values()) == 1
    elif not miniature.a_class:
        assert any(words in reason for reason in reasons for words in MISSING)
    with pytest.raises(AssemblyError, match="refused, more than 1 %"):
        assemble_sources(sources, tmp_path, tmp_path / "strict", name="t")


@pytest.mark.parametrize(
    "miniature", [one for one in MINIATURES if one.a_class], ids=lambda one: one.dataset
)
def test_a_class_folder_that_is_missing_is_named(tmp_path: Path, miniature: Miniature) -> None:
    [source] = on_disk(miniature, tmp_path)
    folders = list((tmp_path / source.folder).glob(miniature.a_class))
    assert folders
    for folder in folders:
        shutil.rmtree(folder)
    with pytest.raises(SourceError, match=f"class folder {folders[0].name!r} is below .* missing"):
        assemble_sources([source], tmp_path, tmp_path / "out", name="t", on_error="skip")
