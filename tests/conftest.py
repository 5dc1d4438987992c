"""Fixtures shared by the tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def clinical_kit() -> Path:
    """The folder of real public files, or a skip where this machine has none."""
    named = os.environ.get("QOQ_CLINICAL_KIT")
    kit = Path(named) if named else ROOT.parent / "shared" / "clinical_kit"
    if not kit.is_dir():
        pytest.skip(f"no clinical kit at {kit}: set QOQ_CLINICAL_KIT to its folder")
    return kit
