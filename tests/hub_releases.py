"""Release folders for the tests of the Hub, and a Hub that the clients in this process talk to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import HubServer
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

CARD = "---\nlicense: apache-2.0\ntags: [medical]\n---\n# A model\n"
GATED = CARD.replace("---\n#", "extra_gated_prompt: The terms of the source.\n---\n#")


def write_release(folder: Path, files: dict[str, bytes] | None = None, card: str = CARD) -> Path:
    """A release of a card, a large file and a small one in a folder, and ``files``."""
    content = {
        "README.md": card.encode(),
        "model.safetensors": b"\0weights" * 100,
        "runs/run one.json": b'{"seed": 0}',
    }
    for path, data in (content | (files or {})).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def hub_environment(hub: HubServer, cache: Path, token: str = "hf_write") -> dict[str, str]:
    """The environment of another process whose clients talk to ``hub``, with a cache of its own."""
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": token,
    }
    return os.environ | settings


@contextmanager
def hub_here(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[HubServer]:
    """A Hub for the clients of this process, which read its address when they were imported."""
    with HubServer().running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        for module in (_http, file_download):  # retry at once
            monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: None))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
