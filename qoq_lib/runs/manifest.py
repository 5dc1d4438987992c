"""``run.json``: what each stage of a run did, on what, and how it ended.

``{"schema_version", "run_id", "stages": {<stage>: {"status", "started", "ended", "wall_seconds",
"pid", "parameters", "git", "lock_sha256", "python", "platform", "packages", "hardware", "seeds",
"dataset", "base_model", "metrics", "artefacts"}}}``, where ``status`` is running, completed,
failed or interrupted, times are ISO 8601 in UTC and ``artefacts`` maps paths inside the run folder
to SHA-256. Nothing in it names a home folder or a user.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from filelock import FileLock

from qoq_lib.runs.files import RunError, project_root, sha256_file, write_json_atomic

SCHEMA_VERSION = 1


class Manifest:
    """The file ``run.json`` of one run, read and rewritten under a lock at every change.

    Several stages may write at once (04 draws curves while 03 trains), so no copy is kept.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id

    def read(self) -> dict[str, Any]:
        """The manifest as written, or an empty one; ``RunError`` when the file is not readable."""
        if not self.path.exists():
            return {"schema_version": SCHEMA_VERSION, "run_id": self.run_id, "stages": {}}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(
                f"Cannot read {self.path}: move that run folder away or choose another run_id."
            ) from error
        if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
            raise RunError(
                f"{self.path} is not a run manifest of version {SCHEMA_VERSION}: choose another "
                "run_id."
            )
        return content

    def claim(self, stage: str, facts: Mapping[str, Any]) -> dict[str, Any] | None:
        """Enter ``stage`` as running in this process and return its earlier entry, if any.

        Every stage left running by a dead process becomes interrupted. Raises ``RunError`` when
        another live process is at this stage.
        """
        with self._changing() as stages:
            for name, entry in stages.items():
                if entry["status"] != "running":
                    continue
                if name == stage and _is_another_process(entry):
                    raise RunError(
                        f"Process {entry['pid']} is running {stage} of run {self.run_id!r} since "
                        f"{entry['started']}: wait for it, stop it, or choose another run_id."
                    )
                if name == stage or not _is_alive(entry):
                    entry["status"] = "interrupted"
            previous = stages.get(stage)
            stages[stage] = {**_new_entry(), **facts}
        return previous

    def update(self, stage: str, facts: Mapping[str, Any]) -> None:
        """Add facts to the entry of ``stage``."""
        with self._changing() as stages:
            stages[stage].update(facts)

    def end(self, stage: str, status: str, facts: Mapping[str, Any]) -> None:
        """Close the entry of ``stage`` with its status, end and duration."""
        now = datetime.now(UTC)
        with self._changing() as stages:
            entry = stages[stage]
            seconds = (now - datetime.fromisoformat(entry["started"])).total_seconds()
            times = {"ended": _iso(now), "wall_seconds": round(seconds, 3)}
            entry.update({**facts, **times, "status": status})

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        try:
            with FileLock(self.path.with_name(".run.json.lock"), timeout=60):
                content = self.read()
                yield content["stages"]
                write_json_atomic(self.path, content)
        except OSError as error:
            raise RunError(
                f"Cannot write {self.path} ({error.strerror or error}): set QOQ_RUNS to a folder "
                "you may write to."
            ) from error


def hash_artefacts(artefacts: Iterable[str | os.PathLike[str]], run_folder: Path) -> dict[str, str]:
    """SHA-256 of each file, and of each file in each folder, by its path inside the run folder.

    Raises ``RunError`` naming an artefact that is missing or lies elsewhere.
    """
    hashes = {}
    for artefact in artefacts:
        path = run_folder / artefact
        if not path.exists():
            raise RunError(f"The artefact {path} does not exist: it was never written.")
        if not path.resolve().is_relative_to(run_folder.resolve()):
            raise RunError(f"The artefact {path} lies outside the run folder {run_folder}.")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            name = file.resolve().relative_to(run_folder.resolve()).as_posix()
            hashes[name] = sha256_file(file)
    return hashes


def plain(value: Any, run_folder: Path) -> Any:
    """``value`` as JSON can hold it and others may read it.

    numpy scalars and arrays become Python's, NaN and infinities ``None`` (JSON has none), paths
    relative to the run folder or the project; of a path elsewhere only the last part is kept.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, run_folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, run_folder) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist(), run_folder)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | Path):
        return _portable(str(value), run_folder)
    return value


def _portable(text: str, run_folder: Path) -> str:
    path = Path(text).expanduser() if text.startswith("~") else Path(text)
    if not path.is_absolute():
        return text
    for base in (run_folder, project_root()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return f"\N{HORIZONTAL ELLIPSIS}/{path.name}"


def _new_entry() -> dict[str, Any]:
    return {
        "status": "running",
        "started": _iso(datetime.now(UTC)),
        "ended": None,
        "wall_seconds": None,
        "pid": os.getpid(),
        "dataset": None,
        "base_model": None,
        "metrics": None,
        "artefacts": {},
    }


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def _is_another_process(entry: Mapping[str, Any]) -> bool:
    return bool(entry["pid"] != os.getpid()) and _is_alive(entry)


def _is_alive(entry: Mapping[str, Any]) -> bool:
    """Whether the process that wrote ``entry`` still lives, and is not a later one of its pid."""
    try:
        process = psutil.Process(entry["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.create_time() <= datetime.fromisoformat(entry["started"]).timestamp() + 1
    except psutil.NoSuchProcess:
        return False
