"""Fixtures shared by the tests."""

import copy
import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def loud(tiny: tuple[Any, Any]) -> tuple[Any, Any]:
    """A copy that hears what it is given; the answers of fresh weights are hardly moved by it."""
    import torch

    model = copy.deepcopy(tiny[0])
    with torch.no_grad():
        model.model.ecg_encoder.embed.weight *= 100
        model.model.ecg_projector.fc2.weight *= 30
        model.model.visual.merger.mlp[2].weight *= 30
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight *= 10
            layer.mlp.down_proj.weight *= 10
    return model, tiny[1]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Hub on this machine, empty, that this process's clients talk to: a ``HubServer``."""
    from hub_releases import hub_here

    with hub_here(monkeypatch, tmp_path / "cache") as server:
        yield server
