"""The GPU benchmark runs where there is no GPU, and its record is a row of the table."""

from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "gpu_results.md"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_7b

    return gpu_7b


def test_it_runs_at_tiny_size_on_a_cpu_and_writes_nothing(
    benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = RESULTS.read_bytes()
    benchmark.main(["--size", "tiny", "--device", "cpu"])
    printed = capsys.readouterr().out
    stages = [line.split(":")[0] for line in printed.splitlines()]
    assert stages == ["prompt", "decoding", "forward", "LoRA forward and backward"]
    assert "peak" not in printed
    assert RESULTS.read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main([])
    assert "no NVIDIA GPU is visible" in capsys.readouterr().err


def test_a_record_is_a_row_of_the_table(benchmark: Any, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    header = "| a | b | c | d | e | f | g | h | i | j |\n" + "|---" * 10 + "|\n"
    page.write_text(f"# Title\n\n{benchmark.NONE_YET}\n{header}")
    results = [benchmark.Measured(f"s{n}", 100, n + 1.0, 10.0 + n) for n in range(4)]
    for size in ("7b", "3b"):
        benchmark.record(page, size, "GPU", results)
    text = page.read_text()
    assert benchmark.NONE_YET not in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[4:]]
    assert [row[2:] for row in rows] == [
        ["GPU", size, "100.0", "50.0", "33.3", "25.0", "11.0", "13.0"] for size in ("7b", "3b")
    ]
