"""The plan's formulas beside the tensors of a real step, and the tables of the documentation."""

import argparse
from typing import Any

import pytest
import torch

from qoq_lib.runs import project_root


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(project_root() / "benchmarks")
    import memory_plan

    return memory_plan


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fake tensors are the CPU's")
def test_the_estimate_is_near_what_the_step_keeps_alive(benchmark: Any) -> None:
    small = {"layers": 1, "images": 1, "side": 8, "text": 800, "answer": 200}
    shape = argparse.Namespace(**small, questions=2, rollouts=2)
    found = benchmark.compare("7b", "cpu", shape)
    assert found["ratio"].between(0.9, 1.1).all(), found
    above = (found["planned"] - found["planned"].iloc[-1])[:-1]  # without what is always there
    real = (found["found"] - found["found"].iloc[-1])[:-1]
    assert (above / real).loc[["scoring", "backward"]].between(0.7, 1.3).all(), above / real


def test_the_documented_tables_are_those_of_the_command(benchmark: Any) -> None:
    page = (project_root() / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert benchmark.tables() in page
    assert "## Several GPUs and nodes" in page
