"""How a model came to be, and the commands that make it again: all of it from ``run.json``."""

import shlex
from typing import Any

import pandas as pd

from qoq_lib.publishing.cards.markdown import fence, section, table
from qoq_lib.publishing.record import RunRecord, Stage, Stages


def training_section(stages: Stages, start: RunRecord | None = None) -> str:
    """Code, hours, machine, parameters, seeds and packages of every stage of a run.

    ``start`` is the record of the run that the training began from, if another.
    """
    rows = pd.DataFrame([_stage_row(name, entry) for name, entry in stages.items()])
    seeds = pd.DataFrame([{"notebook": name, **one["seeds"]} for name, one in stages.items()])
    hours = sum(_hours(entry) or 0.0 for entry in stages.values())
    paragraphs = [
        _started_from(start) if start else "",
        table(rows),
        f"In all {hours:.3g} hours. The hours of a stage that was interrupted are those of its "
        "last attempt.",
        "Every random number derives from the seeds below.",
        table(seeds),
        *dict.fromkeys(_software(entry) for entry in stages.values()),
    ]
    return section("Training run", *paragraphs)


def reproduction_section(run_id: str, stages: Stages) -> str:
    """The exact lines, with every parameter that the run was started with."""
    lines, at, notes = [], None, []
    for name, entry in stages.items():
        if (sha := entry["git"]["sha"]) != at and sha:
            lines.append(f"git checkout {sha}")
        lines.append(papermill_line(name, entry, run_id))
        at = sha
    if any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines):
        notes.append(
            "Paths outside the project are shortened to `…/name`: put your own in their place."
        )
    notes.append(
        "`run.json` beside this card holds the parameters, seeds, package versions, hardware and "
        "file hashes of every stage; `notebooks/` holds the executed notebooks that the run kept."
    )
    return section(
        "How to reproduce",
        "In a checkout of the reproducibility package:",
        fence("\n".join(lines), "sh"),
        *notes,
    )


def papermill_line(stage: str, entry: Stage, run_id: str) -> str:
    """The command that runs one notebook as it was run.

    papermill reads ``-p name 1`` as a number; ``-r`` keeps a text that looks like one a text.
    """
    words = ["papermill", f"notebooks/{stage}.ipynb", f"runs/{run_id}/{stage}.ipynb"]
    for name, value in entry["parameters"].items():
        words += ["-r" if _looks_typed(value) else "-p", name, str(value)]
    return shlex.join(words)


def _looks_typed(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return value in ("True", "False", "None")
    return True


def _software(entry: Stage) -> str:
    git, lock = entry["git"], entry["lock_sha256"]
    code = f"commit `{git['sha']}`" if git["sha"] else "a copy outside git"
    changed = ", with changes that were not committed" if git["dirty"] else ""
    locked = f"; lock file of the environment: SHA-256 `{lock}`" if lock else ""
    packages = ", ".join(f"{name} {version}" for name, version in entry["packages"].items())
    return (
        f"Code: {code}{changed}{locked}. Python {entry['python']} on {entry['platform']}; "
        f"{packages}."
    )


def _started_from(start: RunRecord) -> str:
    return (
        f"The training began from the {start.checkpoint} checkpoint of run `{start.run_id}`, whose "
        "data sets are counted among this model's."
    )


def _stage_row(name: str, entry: Stage) -> dict[str, Any]:
    return {
        "notebook": name,
        "status": entry["status"],
        "started (UTC)": entry["started"][:16].replace("T", " "),
        "hours": _hours(entry),
        "hardware": hardware(entry),
        "parameters": ", ".join(f"{key} {value!r}" for key, value in entry["parameters"].items()),
    }


def hardware(entry: Stage) -> str:
    """GPUs, processor cores and memory of a stage in words."""
    facts = entry["hardware"]
    gpus = [f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in facts["gpus"]]
    words = [f"{gpus.count(gpu)} x {gpu}" for gpu in dict.fromkeys(gpus)] or ["no GPU"]
    return ", ".join([*words, f"{facts['cpus']} CPU cores", f"{facts['ram_gib']} GiB memory"])


def _hours(entry: Stage) -> float | None:
    seconds = entry["wall_seconds"]
    return None if seconds is None else seconds / 3600
