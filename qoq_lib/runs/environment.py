"""What a run ran on: code, lock, packages and hardware, for the notebook and ``run.json``."""

import os
import platform
import subprocess
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import psutil

from qoq_lib.runs.files import project_root, sha256_file

PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "huggingface-hub",
    "unsloth",
    "bitsandbytes",
    "jupyterlab",
    "papermill",
    "seaborn",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "pillow",
    "pydantic",
    "pydicom",
    "wfdb",
)

_STYLE = (
    "border-collapse:collapse;font-size:var(--jp-content-font-size1, 14px);"
    "color:var(--jp-content-font-color1, inherit)"
)
_CELL = (
    "text-align:left;padding:2px 12px 2px 0;vertical-align:top;"
    "border-bottom:1px solid var(--jp-border-color2, #8888)"
)


@dataclass(frozen=True)
class Environment:
    """The facts about code and machine that decide whether a result can be had again.

    ``git`` is ``{"sha", "dirty"}``, both ``None`` outside a git checkout;
    ``lock_sha256`` hashes
    the lock this environment is built from (``requirements/gpu.txt`` where unsloth is installed,
    else ``cpu.txt``); ``hardware`` is ``{"cpus", "ram_gib", "gpus": [{"name", "memory_gib"}]}``.
    """

    git: dict[str, Any]
    lock_sha256: str | None
    python: str
    platform: str
    packages: dict[str, str]
    hardware: dict[str, Any]

    @classmethod
    def collect(cls) -> "Environment":
        """Look at the machine now (imports torch, if it is installed, to see the GPUs)."""
        return cls(
            git=_git(),
            lock_sha256=_lock_sha256(),
            python=platform.python_version(),
            platform=platform.platform(),
            packages=_packages(),
            hardware={
                "cpus": os.cpu_count(),
                "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
                "gpus": _gpus(),
            },
        )

    def rows(self) -> list[tuple[str, str]]:
        """Name and text of each fact, as both displays show them."""
        gpus = [f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in self.hardware["gpus"]]
        return [
            ("Code", _told(self.git)),
            ("Lock", (self.lock_sha256 or "none")[:12]),
            ("Python", f"{self.python} on {self.platform}"),
            ("CPU", f"{self.hardware['cpus']} cores, {self.hardware['ram_gib']} GiB memory"),
            ("GPU", ", ".join(gpus) or "none"),
            ("Packages", ", ".join(f"{name} {number}" for name, number in self.packages.items())),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{name:<9} {text}" for name, text in self.rows())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="{_CELL}">{escape(name)}</th>'
            f'<td style="{_CELL}">{escape(text)}</td></tr>'
            for name, text in self.rows()
        )
        return f'<table style="{_STYLE}">{rows}</table>'


def code_version() -> str:
    """The commit of this code, and whether it has changes beside it."""
    return _told(_git())


def _told(git: dict[str, Any]) -> str:
    return (git["sha"] or "no git commit")[:13] + " + uncommitted changes" * bool(git["dirty"])


def _git() -> dict[str, Any]:
    unknown = {"sha": None, "dirty": None}
    root = project_root()
    if not (root / ".git").exists():  # unpacked inside some other repository: not our history
        return unknown
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return unknown
    lines = answer.stdout.splitlines()
    oid = next((line.split()[2] for line in lines if line.startswith("# branch.oid")), "(initial)")
    return {
        "sha": None if oid == "(initial)" else oid,
        "dirty": any(not line.startswith("#") for line in lines),
    }


def _lock_sha256() -> str | None:
    name = "gpu.txt" if find_spec("unsloth") else "cpu.txt"
    lock = project_root() / "requirements" / name
    return sha256_file(lock) if lock.is_file() else None


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _gpus() -> list[dict[str, Any]]:
    if not find_spec("torch"):
        return []
    import torch

    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        {"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in properties
    ]
