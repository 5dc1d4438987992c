"""A study over several processes: a seed's arms are queued as soon as its start is ready."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from qoq_lib.evaluation.study.config import Study, StudyError
from qoq_lib.evaluation.study.planning import ArmRun, Start, runs_of, write_plan
from qoq_lib.evaluation.study.running import find_start, has_weights, prepare, run_arm
from qoq_lib.runs import runs_root

STUDY_RUN = "study"
"""The run that studies share unless another is named, so that they share what is finished."""


def study_folder(run_id: str = STUDY_RUN) -> Path:
    """The folder of a study's run."""
    return runs_root() / run_id


def run_study(
    study: Study, folder: Path, *, workers: int = 1, data_root: Path | None = None
) -> list[ArmRun]:
    """Run what is not finished of a study and write ``plan.json``; the runs, seed by seed.

    Args:
        study: see ``config``.
        folder: the run folder; what it holds of this or another study is used again. Where all is
            finished, no weights are read and none need be there.
        workers: processes, each of one CPU thread; none starts where all is finished. A GPU is used
            by sizes that need one alone.
        data_root: folder of the kit, for a study on it.

    Raises:
        StudyError: another process works in the folder, the kit's folder is not given, a worker
            died, or arms failed; then the others are finished first.
    """
    _check_data_root(study, data_root)
    with _alone_in(folder), _Crew(workers, study.size().needs_gpu) as crew:
        starts: dict[int, Start] = {}
        queued: set[Path] = set()

        def begin(start: Start) -> None:
            starts[start.seed] = start
            write_plan(study, [starts[seed] for seed in study.seeds if seed in starts], folder)
            for run in _unfinished(study, start, folder):
                if run.folder not in queued:
                    queued.add(run.folder)
                    crew.add(f"{run.arm.name}, seed {start.seed}", run_arm, study, run)

        for seed in study.seeds:
            start = find_start(study, seed, folder, data_root)
            if start and (has_weights(start.checkpoint) or not _unfinished(study, start, folder)):
                begin(start)
            else:
                label = f"data and alignment, seed {seed}"
                crew.add(label, prepare, study, seed, folder, data_root)
        for made in crew.results():
            if isinstance(made, Start):
                begin(made)
    return runs_of(study, [starts[seed] for seed in study.seeds], folder)


def runs_so_far(study: Study, folder: Path, data_root: Path | None = None) -> list[ArmRun]:
    """The runs of every seed whose start is known, finished or not; nothing is made or written.

    Raises:
        StudyError: none of them is finished, or the kit's folder is not given.
    """
    _check_data_root(study, data_root)
    found = [find_start(study, seed, folder, data_root) for seed in study.seeds]
    runs = runs_of(study, [start for start in found if start], folder)
    if not any(run.finished(study.split) for run in runs):
        raise StudyError(f"No run of study {study.name!r} is finished in {folder}: run it first.")
    return runs


def _check_data_root(study: Study, data_root: Path | None) -> None:
    if study.data.source == "kit" and data_root is None:
        raise StudyError(
            f"Study {study.name!r} reads the clinical kit: give its folder as data_root."
        )


def _unfinished(study: Study, start: Start, folder: Path) -> list[ArmRun]:
    runs = runs_of(study, [start], folder)
    return [run for run in runs if not run.finished(study.split)]


class _Crew:
    """Labelled jobs over spawned processes; a failed one does not stop the others."""

    def __init__(self, workers: int, needs_gpu: bool = False) -> None:
        context = get_context("spawn")  # a forked copy of torch's threads would hang
        self._pool = ProcessPoolExecutor(workers, context, _start_worker, (needs_gpu,))
        self._labels: dict[Future[Any], str] = {}

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        # After an interrupt no worker may go on writing where the next attempt will.
        for process in list((self._pool._processes or {}).values()) if kind else ():
            process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def add(self, label: str, job: Callable[..., Any], *arguments: Any) -> None:
        """Queue a job; ``StudyError`` when a worker has died."""
        try:
            self._labels[self._pool.submit(job, *arguments)] = label
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def results(self) -> Iterator[Any]:
        """What the jobs return, as they end, those included that are added meanwhile.

        Raises ``StudyError`` at once where a worker died, else at the end where jobs failed.
        """
        failures, done = [], 0
        while self._labels:
            ended, _ = wait(self._labels, return_when=FIRST_COMPLETED)
            for future in ended:
                label, done = self._labels.pop(future), done + 1
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise _worker_died() from error
                verdict = "FAILED" if error else "done"
                print(f"{label}: {verdict} ({done} ended, {len(self._labels)} queued)", flush=True)
                if error is not None:
                    failures.append((label, error))
                else:
                    yield future.result()
        if failures:
            label, error = failures[0]
            others = f" and {len(failures) - 1} others" if len(failures) > 1 else ""
            raise StudyError(f"{label}{others} failed: {type(error).__name__}: {error}") from error


def _worker_died() -> StudyError:
    return StudyError(
        "A worker process died (killed, or out of memory): run the study again, with fewer workers "
        "if memory is short; what is finished is kept and the rest resumes."
    )


def _start_worker(needs_gpu: bool) -> None:
    if not needs_gpu:  # a size that trains on the CPU answers there, too
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Else a worker whose parent was killed would wait for jobs for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".study.lock", timeout=0):
            yield
    except Timeout as error:
        raise StudyError(
            f"Another process works on a study in {folder}: wait for it, or name another run."
        ) from error
