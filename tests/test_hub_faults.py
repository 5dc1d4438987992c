"""What is on the Hub after something went wrong: the earlier release or the new one, never a part.

The genuine client talks to a Hub on this machine. Every case ends by publishing again without the
fault, which must end with the new release.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hub_world as w
import pytest
from hub_server import HubServer
from hub_world import (
    World,
    failing,
    is_empty,
    is_new,
    is_old,
    is_theirs,
    nothing_was_sent,
    with_token,
)

from qoq_lib.hub_errors import BusyError, ConflictError, HubError, OfflineError, TokenError


@pytest.fixture
def world(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(hub, tmp_path, monkeypatch)


@dataclass(frozen=True)
class Case:
    """What goes wrong, which error tells it, with which words, and what is on the Hub then.

    ``final``: publishing again is no use before somebody has decided.
    """

    arrange: Callable[[World], object]
    error: type[HubError] | None
    words: str
    after: Callable[[World], None] = is_old
    final: bool = False


CASES = {
    "large file: connection lost": Case(
        failing("PUT /lfs", lose="request", times=99), OfflineError, "connection to the Hub at"
    ),
    "large file: connection lost once": Case(failing("PUT /lfs", lose="request"), None, "", is_new),
    "large file: reply lost once": Case(failing("PUT /lfs", lose="reply"), None, "", is_new),
    "large file: store out of order": Case(failing("PUT /lfs", 500, times=99), BusyError, "500"),
    "large file: rate limit once": Case(
        failing("PUT /lfs", 429, headers={"Retry-After": "1"}), None, "", is_new
    ),
    "large file: rate limit": Case(failing("lfs/objects", 429, times=99), BusyError, "429"),
    "upload modes: busy": Case(failing("/preupload/", 503, times=99), BusyError, "503"),
    "whoami: rate limit": Case(
        failing("whoami", 429), BusyError, r"busy \(429\)", nothing_was_sent
    ),
    "look: busy": Case(
        failing("GET /api/models/writer/qoq$", 502), BusyError, "502", nothing_was_sent
    ),
    "commit: busy": Case(failing("/commit/", 503), BusyError, "503"),
    "commit: rate limit": Case(failing("/commit/", 429), BusyError, "429"),
    "commit: connection lost before": Case(
        failing("/commit/", lose="request"), OfflineError, "connection"
    ),
    "commit: reply lost": Case(failing("/commit/", lose="reply"), None, "", is_new),
    "commit: reply and connection lost": Case(
        w.lost_for_good, OfflineError, "connection", w.is_new_without_its_tag
    ),
    "commit: no space left": Case(failing("/commit/", 413), HubError, "status 413"),
    "commit: somebody else first": Case(
        w.theirs_first, ConflictError, "changed writer/qoq", is_theirs("README.md", b"theirs")
    ),
    "check: busy": Case(w.verification_fails, BusyError, "503", w.is_new_without_its_tag),
    "check: a file damaged": Case(w.damaged, HubError, "run.json .* earlier state was restored"),
    "check: a file ignored": Case(
        w.hidden,
        HubError,
        "run.json .* earlier state was restored",
        is_theirs(".gitignore", b"run.json"),
        final=True,
    ),
    "tag: busy": Case(
        failing("/tag/", 500), BusyError, "tag v2 of .* published", w.is_new_without_its_tag
    ),
    "tag: reply lost": Case(failing("/tag/", lose="reply"), OfflineError, "tag v2", is_new),
    "tag: another release's": Case(
        w.used_tag, ConflictError, "v1 of .* another release", nothing_was_sent, final=True
    ),
    "tag: no name": Case(
        w.no_tag_name, ConflictError, "'main' is", w.nothing_was_asked, final=True
    ),
    "token: none": Case(with_token(None), TokenError, "No token", w.nothing_was_asked),
    "token: unknown": Case(with_token("hf_wrong"), TokenError, "does not accept", nothing_was_sent),
    "token: reads only": Case(with_token("hf_read"), TokenError, "only reads", nothing_was_sent),
    "token: another account's, private": Case(
        with_token("hf_other"), TokenError, "may not", nothing_was_sent
    ),
    "token: another account's, public": Case(
        w.other_account_on_a_public_repository, TokenError, "may not"
    ),
    "repository: public": Case(w.public, ConflictError, "is public", nothing_was_sent, final=True),
    "repository: other files": Case(
        w.foreign, ConflictError, "notes.txt", is_theirs("notes.txt", b"mine"), final=True
    ),
    "new repository: not allowed": Case(
        w.not_to_create, TokenError, "may not", w.is_not_there, final=True
    ),
    "new repository: taken meanwhile": Case(
        w.taken_meanwhile, ConflictError, "changed", is_empty, final=True
    ),
    "new repository: made public": Case(
        w.created_public, ConflictError, "is public", is_empty, final=True
    ),
    "new repository: reply lost": Case(w.creation_lost, OfflineError, "connection", is_empty),
    "gate: refused": Case(w.gate_refused, TokenError, "may not", is_empty),
    "gate: not closed": Case(w.gate_ignored, ConflictError, "could not be gated", is_empty),
    "network: offline mode": Case(w.offline, OfflineError, "HF_HUB_OFFLINE", w.nothing_was_asked),
    "network: unreachable": Case(w.unreachable, OfflineError, "connection", w.nothing_was_asked),
    "folder: edited after the plan": Case(
        w.edited, ConflictError, "has changed since", nothing_was_sent
    ),
    "folder: a small file edited meanwhile": Case(
        w.edited_meanwhile("run.json", "/preupload/"), HubError, "run.json .* state was restored"
    ),
    "folder: a large file edited meanwhile": Case(
        w.edited_meanwhile("model.safetensors", "lfs/objects"), HubError, "does not have this hash"
    ),
    "card: refused by the Hub": Case(
        w.bad_card, HubError, "license must be a string", nothing_was_sent, final=True
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_old_or_the_new_release_is_visible_never_a_part(world: World, case: Case) -> None:
    case.arrange(world)
    if case.error is None:
        world.publish()
    else:
        with pytest.raises(case.error, match=case.words) as failed:
            world.publish()
        assert "\n" not in str(failed.value) and str(failed.value).endswith((".", "again."))
    case.after(world)
    if not case.final:
        world.repaired()
        world.publish()
        is_new(world)
