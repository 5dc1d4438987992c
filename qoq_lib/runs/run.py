"""One notebook run: its folder, its parameters and its entry in the manifest ``run.json``."""

import atexit
import hashlib
import io
import json
import os
import random
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from qoq_lib.runs.environment import Environment
from qoq_lib.runs.files import (
    RunError,
    existing_run,
    make_folder,
    run_folder,
    write_bytes_atomic,
)
from qoq_lib.runs.manifest import Manifest, hash_artefacts, plain
from qoq_lib.runs.parameters import changed_parameters, read_notebook_parameters
from qoq_lib.runs.progress import still_bars_off
from qoq_lib.runs.results import RESULT_MIME

_open_runs: dict[tuple[Path, str], "Run"] = {}


def start_run(stage: str, namespace: Mapping[str, Any], *, existing: bool = False) -> "Run":
    """Begin ``stage`` of a run: check parameters, claim the stage, seed, show the environment.

    ``namespace`` is the notebook's ``globals()``: the parameters cell and papermill's injected
    cell are read from its history ``In``, so papermill and JupyterLab are held to the same rules.
    Nothing slow happens before the parameters are accepted. A stage that only looks at what others
    made asks for an ``existing`` run: a misspelt name is then refused, and no folder made for it.

    How a stage ends is always on record. ``finish`` marks it completed. A kernel that exits
    without it marks it failed, or interrupted when the last thing raised was KeyboardInterrupt or
    SystemExit. SIGTERM and SIGKILL keep their usual effect, but where a stage saves its work first:
    the process dies at once, its entry stays ``running`` under a dead pid, and the next
    ``start_run`` turns that into interrupted and says so.

    Raises ``ParameterError``, or ``RunError`` when the run folder cannot be written, is not there
    though it should be ``existing``, or a live process is at the same stage of the same run.
    """
    parameters = read_notebook_parameters(namespace)
    parameters.run_id = parameters.run_id or parameters.model_size
    folder = (existing_run if existing else run_folder)(parameters.run_id)
    manifest = Manifest(folder / "run.json", parameters.run_id)
    make_folder(folder)
    previous = manifest.claim(stage, {"parameters": plain(vars(parameters), folder)})
    changed = changed_parameters(namespace)
    run = Run(stage, parameters, changed, folder, manifest, previous)
    if superseded := _open_runs.get((folder, stage)):
        superseded._close()
    _open_runs[folder, stage] = run
    atexit.register(run._end_unfinished)
    still_bars_off()
    environment = Environment.collect()
    manifest.update(stage, {**asdict(environment), "seeds": _seed_everything(parameters.seed)})
    _show(environment)
    if previous and run.was_cut_off:
        print(
            f"Run {run.run_id!r}: an earlier {stage} was {previous['status']} "
            f"(started {previous['started']})."
        )
    return run


class Run:
    """A stage in progress, as ``start_run`` returns it.

    ``parameters`` holds the converted values as attributes (``run_id`` filled in), ``path`` is
    ``<runs root>/<run_id>``, and ``previous`` is the manifest's entry of the last attempt at this
    stage, or ``None``; its ``status`` tells whether there is something to resume.
    """

    def __init__(
        self,
        stage: str,
        parameters: Any,
        changed: Mapping[str, Any],
        folder: Path,
        manifest: Manifest,
        previous: dict[str, Any] | None,
    ) -> None:
        self.stage = stage
        self.parameters = parameters
        self.run_id: str = parameters.run_id
        self._changed = {**changed, "run_id": parameters.run_id}
        self.path = folder
        self.previous = previous
        self._manifest = manifest
        self._pid = os.getpid()
        self._is_open = True

    @property
    def was_cut_off(self) -> bool:
        """Whether an attempt at this stage came before and did not reach its end."""
        return self.previous is not None and self.previous["status"] != "completed"

    def folder(self, name: str) -> Path:
        """The run's subfolder ``name`` (data, checkpoints, rollouts, ...), created if missing."""
        if Path(name).name != name:
            raise RunError(f"{name!r} is not the name of one folder inside run {self.run_id!r}.")
        return make_folder(self.path / name)

    def record(
        self,
        *,
        dataset: Mapping[str, Any] | None = None,
        base_model: Mapping[str, Any] | str | None = None,
    ) -> None:
        """Add facts as the stage learns them.

        ``dataset`` is ``{"fingerprint": ..., "rows": {split: count}}``.
        """
        facts = {"dataset": dataset, "base_model": base_model}
        known = {name: value for name, value in facts.items() if value is not None}
        self._manifest.update(self.stage, plain(known, self.path))

    def save_figure(self, figure: Any, name: str) -> tuple[Path, Path]:
        """Write a figure to ``figures/<name>.png`` and ``.svg``, the same bytes each time."""
        from matplotlib import rc_context

        folder, paths = self.folder("figures"), []
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            with rc_context({"svg.hashsalt": name}):
                figure.savefig(
                    buffer, format=suffix, metadata=metadata, dpi=150, bbox_inches="tight"
                )
            paths.append(write_bytes_atomic(folder / f"{name}.{suffix}", buffer.getvalue()))
        return paths[0], paths[1]

    def finish(
        self, metrics: Mapping[str, Any], artefacts: Iterable[str | os.PathLike[str]] = ()
    ) -> None:
        """Mark the stage completed, with its numbers and the hashes of its files.

        ``artefacts`` are files or folders of the run folder. Displays the result object that
        ``read_result`` finds in the executed notebook.
        """
        hashes = hash_artefacts(artefacts, self.path)
        numbers = plain(metrics, self.path)
        self._manifest.end(self.stage, "completed", {"metrics": numbers, "artefacts": hashes})
        self._close()
        result = {"run_id": self.run_id, "stage": self.stage, "metrics": numbers}
        _show({RESULT_MIME: result, "text/plain": self._summary(numbers)}, raw=True)

    def command(self) -> str:
        """The shell command that starts this stage with the same parameters."""
        options = [_option(name, value) for name, value in sorted(self._changed.items())]
        return " ".join([f"papermill notebooks/{self.stage}.ipynb out.ipynb", *options])

    def _summary(self, metrics: Mapping[str, Any]) -> str:
        numbers = [
            f"{name} {value:.4g}"
            for name, value in metrics.items()
            if isinstance(value, float | int)
        ]
        return f"Run {self.run_id!r}: {self.stage} completed. {', '.join(numbers)}".rstrip()

    def _close(self) -> None:
        self._is_open = False
        atexit.unregister(self._end_unfinished)
        _open_runs.pop((self.path, self.stage), None)

    def _end_unfinished(self) -> None:
        if self._is_open and os.getpid() == self._pid:  # a forked worker is not the run
            last = getattr(sys, "last_value", None)
            stopped = isinstance(last, KeyboardInterrupt | SystemExit)
            self._manifest.end(self.stage, "interrupted" if stopped else "failed", {})


def resume_command(folder: Path) -> str | None:
    """How to start again what this process has open in a run folder; ``None``: nothing is open.

    The command names every parameter that was not as the notebook's cell has it.
    """
    return next((run.command() for (path, _), run in _open_runs.items() if path == folder), None)


def _option(name: str, value: Any) -> str:
    if isinstance(value, list):  # -p takes none
        return f"-y {shlex.quote(json.dumps({name: value}))}"
    return f"-p {name} {shlex.quote(str(value))}"


def derive_seed(seed: int, name: str) -> int:
    """A seed for the use called ``name``: 31 bits of SHA-256, independent across names."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _seed_everything(seed: int) -> dict[str, int]:
    seeds = {name: derive_seed(seed, name) for name in ("python", "numpy", "torch")}
    random.seed(seeds["python"])
    np.random.seed(seeds["numpy"])
    if find_spec("torch"):
        import torch

        torch.manual_seed(seeds["torch"])
    return {"seed": seed, **seeds}


def _show(value: Any, raw: bool = False) -> None:
    from IPython.display import display

    display(value, raw=raw)
