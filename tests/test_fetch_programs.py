"""What pooch, kagglehub and huggingface_hub fetch, themselves, from stand-ins of their hosts."""

import base64
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import Fault, FileServer
from test_fetch_archives import files_below, make_zip

from qoq_lib.data.fetch import FetchError, fetch, registry, transfers
from qoq_lib.data.fetch.origins import Doi, Hub, Kaggle, Origin
from qoq_lib.data.sources.source import Source


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A host for which nobody waits."""
    monkeypatch.setattr(transfers, "LONGEST_WAIT_S", 0.0)
    with FileServer().running() as server:
        yield server


def declare(monkeypatch: pytest.MonkeyPatch, name: str, *ways: Origin) -> Source:
    """Declare where ``name`` comes from; its source lies at ``<name>/`` below the root."""
    monkeypatch.setitem(registry.ORIGINS, name, ways)
    return Source(name, "ct", "none", ("a", "b"), (), folder=name)


def test_a_zenodo_deposit_brings_its_own_checksums(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pooch = pytest.importorskip("pooch", reason="the data extra is not installed")
    contents = {
        "masks.zip": make_zip(tmp_path / "masks.zip", {"masks/1.mhd": b"m"}).read_bytes(),
        "data0.rar": b"a format that is kept packed",
    }
    files = [
        {
            "key": name,
            "links": {"self": server.url(f"/{name}")},
            "checksum": f"md5:{hashlib.md5(body).hexdigest()}",
        }
        for name, body in contents.items()
    ]
    server.files |= {f"/{name}": body for name, body in contents.items()}
    server.files["/api/8348419"] = json.dumps({"id": 8348419, "files": files}).encode()
    address = "https://zenodo.org/records/8348419"
    monkeypatch.setattr(pooch.downloaders, "doi_to_url", lambda doi, **_: address)
    repository = pooch.downloaders.ZenodoRepository
    monkeypatch.setattr(repository, "base_api_url", server.url("/api"))
    source = declare(monkeypatch, "lndb", Doi("10.5281/zenodo.8348419"))
    (done,) = fetch([source], tmp_path / "data")
    assert (done.status, done.new, done.unchecked) == ("complete", 2, 0)
    found = ["10.5281_zenodo.8348419.json", "data0.rar", "masks/1.mhd"]
    assert files_below(tmp_path / "data" / "lndb") == found
    server.requests.clear()
    assert fetch([source], tmp_path / "data")[0].new == 0 and not server.requests
    server.files["/data0.rar"] = b"spoilt"
    (tmp_path / "data" / "lndb" / "data0.rar").unlink()
    with pytest.raises(FetchError, match="another checksum than md5:"):
        fetch([source], tmp_path / "data")


def test_a_deposit_that_cannot_be_listed_is_one_sentence(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pooch = pytest.importorskip("pooch", reason="the data extra is not installed")

    def unreachable(doi: str, **_: Any) -> str:
        raise ConnectionError("my-secret")

    monkeypatch.setattr(pooch.downloaders, "doi_to_url", unreachable)
    source = declare(monkeypatch, "jichi", Doi("10.6084/m9.figshare.4879853"))
    with pytest.raises(
        FetchError, match=r"doi:10\.6084/m9\.figshare\.4879853 cannot be li"
    ) as caught:
        fetch([source], tmp_path)
    assert "my-secret" not in str(caught.value)


@pytest.fixture
def kaggle(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FileServer:
    """Kaggle's interface for version 3 of owner/name, seen by the real kagglehub."""
    pytest.importorskip("kagglehub", reason="the data extra is not installed")
    from kagglesdk import kaggle_env

    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    endpoints = {kaggle_env.KaggleEnv.PROD: server.address}
    monkeypatch.setattr(kaggle_env, "_env_to_endpoint", endpoints)
    archive = make_zip(tmp_path / "k.zip", {"Top/benign/1.png": b"1", "Top/normal/2.png": b"22"})
    service = "/v1/datasets.DatasetApiService"
    server.files[f"{service}/GetDataset"] = json.dumps({"currentVersionNumber": 3}).encode()
    server.types[f"{service}/GetDataset"] = "application/json"
    server.files[f"{service}/DownloadDataset"] = archive.read_bytes()
    return server


def test_a_kaggle_data_set_is_moved_into_its_folder(
    kaggle: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = declare(monkeypatch, "busi", Kaggle("owner/name", strip=1))
    root = tmp_path / "data"
    (done,) = fetch([source], root)
    assert (done.status, done.new, done.unchecked) == ("complete", 2, 0)
    assert files_below(root) == [".fetched/busi.jsonl", "busi/benign/1.png", "busi/normal/2.png"]
    kaggle.requests.clear()
    assert fetch([source], root)[0].new == 0 and not kaggle.requests
    (root / "busi" / "benign" / "1.png").unlink()
    assert fetch([source], root)[0].new == 2
    assert (root / "busi" / "benign" / "1.png").read_bytes() == b"1"


def test_kaggle_goes_on_where_it_was_interrupted_and_checks_what_came(
    kaggle: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    download = "/v1/datasets.DatasetApiService/DownloadDataset"
    noise = random.Random(0).randbytes(3 << 20)  # kagglehub keeps what came by the mebibyte
    body = make_zip(tmp_path / "large.zip", {"1.raw": noise}).read_bytes()
    kaggle.files[download] = body
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    headers = {"Accept-Ranges": "bytes", "x-goog-hash": f"md5={md5}"}
    kaggle.faults[download] = [Fault(headers=headers, cut=5 << 19)]
    source = declare(monkeypatch, "busi", Kaggle("owner/name"))
    with pytest.raises(FetchError, match=r"kagglehub cannot fetch kaggle:owner/name .* is kept"):
        fetch([source], tmp_path / "data")
    kaggle.faults[download] = [Fault(headers=headers), Fault(headers=headers)]
    assert fetch([source], tmp_path / "data")[0].status == "complete"
    assert kaggle.asked(download)[-1].headers["Range"] == f"bytes={2 << 20}-"
    assert (tmp_path / "data" / "busi" / "1.raw").read_bytes() == noise


def test_kaggle_asks_for_a_token_or_accepted_rules(
    kaggle: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source = declare(monkeypatch, "rspect", Kaggle("the-rules", competition=True))
    (done,) = fetch([source], tmp_path / "data")
    assert done.status == "to request" and "accept the terms there" in done.note
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "my-secret")
    service = "/v1/competitions.CompetitionApiService/DownloadDataFiles"
    kaggle.faults[service] = [Fault(403)]
    (done,) = fetch([source], tmp_path / "data")
    assert done.status == "to request" and kaggle.asked(service)[0].headers["Authorization"]
    assert "my-secret" not in "".join([*capfd.readouterr(), repr(done)])


def test_a_hub_repository_is_moved_into_its_folder(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    commit = "a" * 40
    files = {"data/1.png": b"1", "data/2.png": b"22", "README.md": b""}
    api = "/api/datasets/owner/name"
    tree = [
        {"type": "file", "path": name, "size": len(body), "oid": name}
        for name, body in files.items()
    ]
    server.files[f"{api}/revision/v1"] = json.dumps({"id": "owner/name", "sha": commit}).encode()
    server.files[f"{api}/tree/{commit}?recursive=true&expand=false"] = json.dumps(tree).encode()
    for name, body in files.items():
        path = f"/datasets/owner/name/resolve/{commit}/{name}"
        server.files[path] = body
        server.faults[path] = [Fault(headers={"X-Repo-Commit": commit})] * 9
    source = declare(monkeypatch, "busi", Hub("owner/name", "v1", only=("data/*",), strip=1))
    (done,) = fetch([source], tmp_path)
    assert (done.status, done.new) == ("complete", 2)
    assert files_below(tmp_path) == [".fetched/busi.jsonl", "busi/1.png", "busi/2.png"]
    server.requests.clear()
    assert fetch([source], tmp_path)[0].new == 0 and not server.requests
    gated = declare(monkeypatch, "covid19", Hub("owner/gated", "v1"))
    headers = {"X-Error-Code": "GatedRepo"}
    server.faults["/api/datasets/owner/gated/revision/v1"] = [Fault(403, headers)]
    assert fetch([gated], tmp_path)[0].status == "to request"
    with pytest.raises(FetchError, match=r"huggingface_hub cannot fetch hub:owner/gated@v1"):
        fetch([gated], tmp_path)
