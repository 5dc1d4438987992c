"""Fixtures shared by the tests."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None)  # machines differ; the clock is no judge
settings.load_profile("project")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def clinical_kit() -> Path:
    """The folder of real public files, or a skip where this machine has none."""
    named = os.environ.get("QOQ_CLINICAL_KIT")
    kit = Path(named) if named else ROOT.parent / "shared" / "clinical_kit"
    if not kit.is_dir():
        pytest.skip(f"no clinical kit at {kit}: set QOQ_CLINICAL_KIT to its folder")
    return kit


@pytest.fixture(scope="session")
def tiny() -> tuple[Any, Any]:
    """The tiny model and its processor, seed 0; shared, so a test must not change them."""
    from qoq_lib.model.tiny import tiny_model  # only the tests that need it pay for the import

    return tiny_model(seed=0)
