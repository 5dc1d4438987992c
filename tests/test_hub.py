"""Publishing to a Hub and downloading from it with the genuine clients."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_releases import GATED, contents, hub_environment, write_release
from hub_server import HubServer
from huggingface_hub import snapshot_download

from qoq_lib.hub_errors import (
    BusyError,
    GatedError,
    HubError,
    MissingError,
    OfflineError,
    TokenError,
    explain,
    explained,
)
from qoq_lib.model.loading import load_model
from qoq_lib.publishing.hub import publish
from qoq_lib.publishing.plan import plan_release


def many_files() -> dict[str, bytes]:
    """197 files of all kinds: empty, odd names, nested, large, text with Windows line ends."""
    odd = {
        "empty.txt": b"",
        "with space/and ünïcode – name.json": b"{}",
        "a/b/c/d/e.txt": b"one\r\ntwo\r\n",
        "large.txt": b"0123456789abcdef" * 700_000,
        ".eval_results/ptb_xl.yaml": b"- value: 0.5\n",
    }
    shards = {f"data/{n:05d}.safetensors": b"\0shard" * (n + 1) for n in range(96)}
    return odd | shards | {f"notebooks/{n}.json": b"%d" % n for n in range(96)}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_two_hundred_files_come_back_byte_equal(hub: HubServer, tmp_path: Path, kind: Any) -> None:
    folder = write_release(tmp_path / "release", many_files())
    made = publish(plan_release(folder, "writer/qoq", kind), "hf_write", "v1")
    assert (made.changed, made.removed, made.new) == (200, 0, True)
    for revision in ("v1", "main", made.revision):
        got = Path(
            snapshot_download("writer/qoq", repo_type=kind, revision=revision, token="hf_write")
        )
        arrived = contents(got)
        del arrived[".gitattributes"]
        assert arrived == contents(folder)


def test_one_commit_and_a_tag_hold_the_release(hub: HubServer, tmp_path: Path) -> None:
    plan = plan_release(write_release(tmp_path / "r"), "writer/qoq", "model")
    made = publish(plan, "hf_write", "v1")
    repo = hub.repos["models", "writer/qoq"]
    assert [one.title for one in repo.commits] == ["initial commit", "Release of 3 files"]
    assert repo.tags == {"v1": made.revision} and repo.private and made.private
    assert made.url == f"{hub.address}/writer/qoq"
    assert str(made).endswith(f"as v1 at {made.revision[:12]}: 3 files changed, 0 removed")


@pytest.mark.parametrize("tag", ["v1", None])
def test_publishing_the_same_again_sends_nothing(
    hub: HubServer, tmp_path: Path, tag: str | None
) -> None:
    plan = plan_release(write_release(tmp_path / "r"), "writer/qoq", "model")
    made = publish(plan, "hf_write", tag)
    hub.log.clear()
    again = publish(plan, "hf_write", tag)
    assert (again.new, again.revision) == (False, made.revision)
    assert not hub.asked("POST|PUT")


def test_a_new_tag_for_the_same_files_makes_no_commit(hub: HubServer, tmp_path: Path) -> None:
    plan = plan_release(write_release(tmp_path / "r"), "writer/qoq", "model")
    made = publish(plan, "hf_write", "v1")
    publish(plan, "hf_write", "v1.0.1")
    repo = hub.repos["models", "writer/qoq"]
    assert repo.tags == {"v1": made.revision, "v1.0.1": made.revision} and len(repo.commits) == 2


def test_only_what_changed_is_sent_and_strays_go_when_asked(hub: HubServer, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "r", {"old.safetensors": b"\0x"})
    publish(plan_release(folder, "writer/qoq", "model"), "hf_write", "v1")
    (folder / "old.safetensors").rename(folder / "new.safetensors")
    hub.log.clear()
    plan = plan_release(folder, "writer/qoq", "model")
    made = publish(plan, "hf_write", "v2", replace=True)
    assert (made.changed, made.removed) == (1, 1)
    assert not hub.asked("PUT /lfs")  # the same bytes under a new name
    repo = hub.repos["models", "writer/qoq"]
    assert repo.files == contents(folder)
    assert "old.safetensors" in repo.at("v1").files


@pytest.mark.parametrize("private", [True, False])
def test_a_card_with_terms_closes_the_gate_before_the_first_file(
    hub: HubServer, tmp_path: Path, private: bool
) -> None:
    folder = write_release(tmp_path / "r", card=GATED)
    plan = plan_release(folder, "writer/qoq", "dataset", private=private)
    assert plan.gated and "gated" in str(plan)
    publish(plan, "hf_write")
    repo = hub.repos["datasets", "writer/qoq"]
    assert (repo.gated, repo.private) == ("manual", private)
    steps = [line for line in hub.log if "settings" in line or "PUT /lfs" in line]
    assert "settings" in steps[0]


KILLED = """
import sys
from qoq_lib.publishing.hub import publish
from qoq_lib.publishing.plan import plan_release
publish(plan_release(sys.argv[1], "writer/qoq", "model"), tag="v1")
"""


def test_a_killed_upload_leaves_nothing_and_is_completed_later(
    hub: HubServer, tmp_path: Path
) -> None:
    shards = {f"{n}.safetensors": b"\0%d" % n for n in range(4)}
    folder = write_release(tmp_path / "r", shards)
    call = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(call, env=hub_environment(hub, tmp_path / "home")) as upload:
        kill = lambda _: os.kill(upload.pid, signal.SIGKILL)  # noqa: E731
        hub.fail("PUT /lfs", act=lambda _: None, times=2)  # two arrive
        hub.fail("PUT /lfs", act=kill, lose="request", times=9)
        assert upload.wait(60) == -signal.SIGKILL
    repo = hub.repos["models", "writer/qoq"]
    assert repo.files == {} and repo.tags == {}
    assert 1 <= len(hub.large) <= 2
    hub.faults.clear()
    publish(plan_release(folder, "writer/qoq", "model"), "hf_write", "v1")
    assert repo.files == contents(folder) and set(repo.tags) == {"v1"}


def test_a_download_cut_off_is_resumed_and_never_taken_for_whole(
    hub: HubServer, tmp_path: Path
) -> None:
    folder = write_release(tmp_path / "r", {"model.safetensors": bytes(range(256)) * 4000})
    publish(plan_release(folder, "writer/qoq", "model"), "hf_write")
    where = "GET /writer/qoq/resolve/.*/model.safetensors"
    hub.fail(where, lose="half", times=99)
    with pytest.raises(OfflineError, match="connection"), explained("writer/qoq (model)"):
        snapshot_download("writer/qoq", token="hf_write")
    hub.faults.clear()
    hub.fail(where, lose="half")
    got = contents(Path(snapshot_download("writer/qoq", token="hf_write")))
    assert {path: got[path] for path in contents(folder)} == contents(folder)


def gated(hub: HubServer) -> None:
    repo = hub.create("models", "writer/qoq", private=False)
    repo.gated = "manual"


def private(hub: HubServer) -> None:
    hub.create("models", "writer/qoq", private=True)


@pytest.mark.parametrize(
    ("prepare", "revision", "error", "words"),
    [
        (gated, None, GatedError, "is gated: accept its terms"),
        (private, None, MissingError, "is not on the Hub, or is private"),
        (lambda hub: None, None, MissingError, "is not on the Hub, or is private"),
        (lambda hub: hub.create("models", "writer/qoq", private=False), "v9", MissingError, "v9"),
        (lambda hub: hub.fail("writer/qoq", 503, times=99), None, BusyError, "busy"),
        (lambda hub: hub.fail("", lose="request", times=99), None, OfflineError, "connection"),
    ],
)
def test_loading_tells_gated_from_missing_from_offline(
    hub: HubServer, prepare: Any, revision: str | None, error: type[HubError], words: str
) -> None:
    prepare(hub)
    with pytest.raises(error, match=words) as told:
        load_model("writer/qoq", revision=revision)
    assert "\n" not in str(told.value) and "writer/qoq" in str(told.value)


def test_an_unknown_token_is_told_from_a_missing_repository(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(TokenError, match="does not accept the token"):
        load_model("writer/qoq")


def test_an_unknown_failure_of_the_client_is_one_sentence() -> None:
    told = explain(RuntimeError("Xet: upload failed\n  at chunk 3."), "writer/qoq (model)")
    assert type(told) is HubError
    assert str(told) == (
        "The Hub's client failed for writer/qoq (model): Xet: upload failed at chunk 3."
    )


def test_an_error_of_ours_inside_the_block_stays_itself() -> None:
    with pytest.raises(KeyError), explained("x (model)"):
        raise KeyError("ours")
    with pytest.raises(ValueError, match="ours"), explained("x (model)"):
        raise ValueError("ours")
