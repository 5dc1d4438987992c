"""Throughput and memory of assembly, beside a plain loop over the same reader.

Each measurement runs in a process of its own. The plain loop makes the same rows one after another
and writes nothing. Peak memory is that of the process that assembles and of its largest worker.
``--large`` assembles as many rows as asked, with all that grows with their number (plan, shards,
index, leak report), but draws each pattern's picture once: a million drawings would take hours.

    python benchmarks/assemble.py --rows 2000 --workers 1 2 --large 1000000
    python benchmarks/assemble.py --kit path/to/kit --workers 1 2
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from qoq_lib.data.assemble import assemble
from qoq_lib.data.listing import list_records
from qoq_lib.data.making import made_phantom, made_row
from qoq_lib.data.phantom.catalog import Finding
from qoq_lib.data.phantom.plan import Case, Patient
from qoq_lib.data.phantom.rows import phantom_cases
from qoq_lib.data.shards import Made, shards_of, write_shards
from qoq_lib.data.sources.kit import KIT
from qoq_lib.data.storage import Assembly, collect, finish, load_assembled, new_folder

Measured = tuple[int, float]
"""Rows, and the seconds they took."""


def main() -> None:
    """Measure and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000, help="rows of the phantom")
    parser.add_argument("--kit", type=Path, help="folder of the clinical kit, for the phantom")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--large", type=int, help="also write so many rows, media drawn once")
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
        if options.large:
            out = Path(scratch, "large")
            report("media drawn once", large, out, options.large, max(options.workers))


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


def large(out: Path, rows: int, workers: int) -> Measured:
    """Assemble a phantom of ``rows`` rows whose pictures and ECGs are drawn once per pattern."""
    start = time.perf_counter()
    assembly = Assembly(sources="phantom", seed=0)
    with new_folder(out) as folder:
        cases = phantom_cases(rows, 0, 0.0)
        shards = shards_of(cases, [case.split for case in cases])
        for _ in collect(assembly, folder, write_shards(folder, shards, made_once, workers)):
            pass
        finish(assembly, folder)
    return sum(one.rows for one in assembly.leaks.values()), time.perf_counter() - start


def made_once(case: Case, split: str) -> Made:
    """The row of ``case`` with the media of the first of its kind."""
    made = prototype(case.domain, case.finding, case.split == "align")
    own = {"id": case.id, "patient_id": case.patient.id, "split": split}
    return replace(made, row=made.row | own)


@cache
def prototype(domain: str, finding: Finding, perceive: bool) -> Made:
    """A row drawn for this finding."""
    split = "align" if perceive else "train"
    case = Case(f"{domain}/{finding.diagnosis}", domain, split, finding, Patient("p", "F", 60))
    return made_phantom(case, split, seed=0, difficulty=0.0)


if __name__ == "__main__":
    main()
