"""Throughput and memory of assembly, beside a plain loop over the same reader.

Each measurement runs in a process of its own. The plain loop makes the same rows one after another
and writes nothing. Peak memory is that of the process that assembles and of its largest worker. Two
last lines are of ``--plan`` rows, which nobody draws here: what memory the plan of so large an
assembly takes and what its leak report does. Those grow with the rows; the writers' part does not.

    python benchmarks/assemble.py --rows 2000 --workers 1 2
    python benchmarks/assemble.py --kit ../shared/clinical_kit --workers 1 2
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qoq_lib.data.assemble import assemble
from qoq_lib.data.leaks import leak_report
from qoq_lib.data.listing import list_records
from qoq_lib.data.making import made_phantom, made_row
from qoq_lib.data.phantom.rows import phantom_cases
from qoq_lib.data.shards import shards_of
from qoq_lib.data.sources.kit import KIT
from qoq_lib.data.storage import Assembly, load_assembled

Measured = tuple[int, float]
"""Rows, and the seconds they took."""


def main() -> None:
    """Measure and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000, help="rows of the phantom")
    parser.add_argument("--kit", type=Path, help="folder of the clinical kit, for the phantom")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--plan", type=int, default=1_000_000, help="0: leave these lines out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        plain = (plain_kit, options.kit) if options.kit else (plain_phantom, options.rows)
        report("plain loop, nothing written", *plain)
        for workers in options.workers:
            out = Path(scratch, f"{workers}")
            report(
                f"assembly, {workers} workers", assembled, out, options.kit, options.rows, workers
            )
        report("reading all rows, decoded", read, out)
    if options.plan:
        report("plan", planned, options.plan)
        report("leak report", leaks, options.plan)


def report(label: str, work: Callable[..., Measured], *arguments: Any) -> None:
    """Run ``work`` in a fresh process and print what it took."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        rows, seconds, own, child = pool.submit(measured, work, *arguments).result()
    print(
        f"{label:28} {rows:9} rows {seconds:8.1f} s {rows / seconds:10.1f} rows/s   peak "
        f"{own:.2f} GB, largest worker {child:.2f} GB"
    )


def measured(work: Callable[..., Measured], *arguments: Any) -> tuple[int, float, float, float]:
    """What ``work`` measured, and the peak memory of this process and of its children, in GB."""
    rows, seconds = work(*arguments)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, -1)]
    return rows, seconds, *(peak * 1024 / 1e9 for peak in peaks)


def plain_phantom(rows: int) -> Measured:
    """Plan and draw the phantom."""
    start = time.perf_counter()
    for case in phantom_cases(rows, 0, 0.0):
        made_phantom(case, case.split, seed=0, difficulty=0.0)
    return rows, time.perf_counter() - start


def plain_kit(kit: Path) -> Measured:
    """List and read the kit."""
    start = time.perf_counter()
    listed = list_records(KIT, kit, Assembly(sources="kit", seed=0))
    for one in listed:
        made_row(one, "train", seed=0, embed=True)
    return len(listed), time.perf_counter() - start


def assembled(out: Path, kit: Path | None, rows: int, workers: int) -> Measured:
    """Assemble the kit or the phantom."""
    start = time.perf_counter()
    source = "kit" if kit else "phantom"
    assembly = assemble(source, out, data_root=kit, rows=rows, workers=workers)
    return sum(one.rows for one in assembly.leaks.values()), time.perf_counter() - start


def read(out: Path) -> Measured:
    """Read every row in an order at random, its images decoded, once the table is mapped."""
    data = load_assembled(out)
    start = time.perf_counter()
    rows = 0
    for split in data.values():
        for row in split.shuffle(seed=0):
            rows += bool(row["id"])
    return rows, time.perf_counter() - start


def planned(rows: int) -> Measured:
    """Plan a phantom and deal it to shards."""
    start = time.perf_counter()
    cases = phantom_cases(rows, 0, 0.0)
    shards_of(cases, [case.split for case in cases])
    return rows, time.perf_counter() - start


def leaks(rows: int) -> Measured:
    """The leak report of an index with random looks."""
    rng = np.random.default_rng(0)
    index = pa.table(
        {
            "dataset": ["d"] * rows,
            "patient_id": [f"d/{n // 2}" for n in range(rows)],
            "split": [("train", "test")[n // 2 % 2] for n in range(rows)],
            "content": [f"{n:064d}" for n in range(rows)],
            "look": rng.integers(0, 2**63, rows, dtype=np.uint64),
        }
    )
    start = time.perf_counter()
    leak_report(index)
    return rows, time.perf_counter() - start


if __name__ == "__main__":
    main()
