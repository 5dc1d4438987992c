"""The plan's formulas beside the tensors of a real step, and the tables of the documentation."""

from typing import Any

import pytest
import torch

from qoq_lib.runs import project_root


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(project_root() / "benchmarks")
    import memory_plan

    return memory_plan


def shape(benchmark: Any, **changes: int) -> Any:
    import argparse

    small = {"layers": 1, "images": 1, "side": 8, "text": 64, "answer": 16}
    return argparse.Namespace(**small | {"questions": 2, "rollouts": 2} | changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fake tensors are the CPU's")
@pytest.mark.parametrize("size, changes", [("3b", {"text": 800}), ("7b", {"answer": 200})])
def test_the_estimate_is_near_what_the_step_keeps_alive(
    benchmark: Any, size: str, changes: dict[str, int]
) -> None:
    found = benchmark.compare(size, "cpu", shape(benchmark, **changes))
    assert found["ratio"].between(0.9, 1.1).all(), found
    above = (found["planned"] - found["planned"].iloc[-1])[:-1]  # without what is always there
    real = (found["found"] - found["found"].iloc[-1])[:-1]
    assert (above / real).loc[["scoring", "backward"]].between(0.7, 1.3).all(), above / real


def test_the_documented_tables_are_those_of_the_command(benchmark: Any) -> None:
    page = (project_root() / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert benchmark.tables() in page
    assert "## Several GPUs and nodes" in page
