"""pyproject.toml, both locks and environment.yml describe one environment."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from qoq_lib.runs import project_root

ROOT = project_root()
ASKED_FOR = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "huggingface-hub",
    "jupyterlab",
    "papermill",
    "seaborn",
}
# What unsloth 2026.10.7 declares; a resolver that breaks a cap falls back to a year-old unsloth.
UNSLOTH_CAPS = {
    "torch": "<2.15",
    "transformers": "<=5.17.0",
    "trl": "<=1.15.0,!=1.15.0",  # the second: GRPO on a CPU
    "datasets": "<5,!=4.0.*,!=4.1.0,!=4.4.*,!=4.5.0",
    "huggingface-hub": "<2",
}


def read_lock(path: Path) -> dict[str, str]:
    """Name to version; every line must be one exact pin."""
    pins: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = re.fullmatch(r"([a-z0-9._-]+)==([0-9][0-9a-z.]*)", line)
            assert pin, f"{path.name}: {line!r} is not of the form name==version"
            pins[canonicalize_name(pin[1])] = pin[2]
    return pins


def broken(requirements: list[str], pins: dict[str, str]) -> list[str]:
    """The requirements that the pins do not meet."""
    parsed = [Requirement(text) for text in requirements]
    return [
        str(item)
        for item in parsed
        if not item.specifier.contains(pins.get(canonicalize_name(item.name), "0"))
    ]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CPU = read_lock(ROOT / "requirements" / "cpu.txt")
GPU = read_lock(ROOT / "requirements" / "gpu.txt")


def test_the_locks_meet_pyproject() -> None:
    assert broken(PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["data"], CPU) == []
    extras = EXTRAS["dev"] + EXTRAS["data"] + EXTRAS["gpu"]
    assert broken(PROJECT["dependencies"] + extras, GPU) == []


@pytest.mark.parametrize("pins", [CPU, GPU], ids=["cpu", "gpu"])
def test_the_locks_keep_unsloths_caps(pins: dict[str, str]) -> None:
    assert broken([f"{name}{caps}" for name, caps in UNSLOTH_CAPS.items()], pins) == []


def test_the_locks_hold_every_package_asked_for() -> None:
    assert ASKED_FOR <= set(CPU)
    assert ASKED_FOR | {"unsloth"} <= set(GPU)
    assert GPU["unsloth"] == GPU["unsloth-zoo"]


def test_the_gpu_lock_is_the_cpu_lock_and_more() -> None:
    assert {name: GPU.get(name) for name in CPU} == CPU
    # Beside a CPU torch, torchvision breaks the import of the Qwen2.5-VL classes.
    absent = {"torchvision", "unsloth", "triton", "bitsandbytes"}
    assert not absent & set(CPU)
    assert not [name for name in CPU if name.startswith("nvidia-")]


def test_conda_users_get_the_same_lock() -> None:
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [item for item in content["dependencies"] if isinstance(item, str)]
    pip = next(item["pip"] for item in content["dependencies"] if isinstance(item, dict))
    assert pip == ["-r requirements/cpu.txt", "-e ."]
    assert {re.split("[=<>]", item)[0] for item in conda} == {"python", "pip"}
    python = next(item for item in conda if item.startswith("python")).split("=")[1]
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")


def test_a_wrong_pin_is_found() -> None:
    assert broken(["trl<=1.15.0"], {"trl": "1.16.0"}) == ["trl<=1.15.0"]
    assert broken(["missing>=1"], {}) == ["missing>=1"]
