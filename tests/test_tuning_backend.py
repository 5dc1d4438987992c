"""peft or unsloth: asked for by name, and refused in one sentence where it cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qoq_lib.training import backend
from qoq_lib.training.backend import BackendError, start_backend, start_backend_of


def test_peft_is_the_backend_that_is_always_there() -> None:
    start_backend("peft")
    with pytest.raises(BackendError, match="Unknown backend 'slothful': use one of peft, unsloth"):
        start_backend("slothful")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_unsloth_without_a_gpu_is_refused_before_anything_heavy() -> None:
    code = (
        "import sys\n"
        "from qoq_lib.training.backend import BackendError, start_backend\n"
        "try:\n"
        "    start_backend('unsloth')\n"
        "except BackendError as error:\n"
        "    print(error)\n"
        "print([name for name in ('transformers', 'trl', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "backend 'unsloth' needs an NVIDIA GPU and none is visible: use backend 'peft' here.",
        "[]",
    ]


@pytest.mark.parametrize("error", [ImportError, NotImplementedError, RuntimeError])
def test_unsloth_that_cannot_be_imported_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(_: str) -> None:
        raise error("no\nluck")

    monkeypatch.setattr(backend, "_gpu_is_visible", lambda: True)
    monkeypatch.setattr(backend, "import_module", broken)
    monkeypatch.setattr(backend, "PATCHED", ("pytest",))  # stands for transformers, already here
    with pytest.raises(BackendError, match="must be started before pytest is imported"):
        start_backend("unsloth")
    monkeypatch.setattr(backend, "PATCHED", ())
    with pytest.raises(BackendError, match=r"cannot be imported \(no luck\): install"):
        start_backend("unsloth")


@pytest.mark.parametrize(
    "text", [None, "{", "- a", "size: tiny", "backend: slothful", "backend: []"]
)
def test_what_is_wrong_with_a_job_is_left_to_its_reader(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    start_backend_of(["--config", str(tmp_path / "config.yaml"), "--more"])
    start_backend_of([])


def test_a_job_names_its_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_gpu_is_visible", lambda: False)
    (tmp_path / "config.yaml").write_text("backend: unsloth")
    with pytest.raises(BackendError, match="needs an NVIDIA GPU"):
        start_backend_of(["--config", str(tmp_path / "config.yaml")])
