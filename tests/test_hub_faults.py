"""What is on the Hub after something went wrong: the earlier release or the new one, never a part.

The genuine client talks to a Hub on this machine. Every case ends by publishing again without the
fault, which must end with the new release.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_releases import CARD, contents, hub_here, write_release
from hub_server import HubServer
from hub_store import Blob, Repo, Store
from huggingface_hub import constants

from qoq_lib.hub_errors import (
    BusyError,
    ConflictError,
    HubError,
    OfflineError,
    TokenError,
)
from qoq_lib.publishing.hub import publish
from qoq_lib.publishing.plan import RepoType, plan_release

GATE = CARD.replace("---\n#", "extra_gated_prompt: The terms of the source.\n---\n#")
LATER = {"model.safetensors": b"\0later" * 200, "steps/1.parquet": b"\0rows", "run.json": b"{}"}


class World:
    """A Hub that holds release v1, and release v2 in a folder, ready to be published."""

    def __init__(self, hub: HubServer, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.hub, self.patch = hub, patch
        self.old = write_release(folder / "old")
        self.new = write_release(folder / "new", LATER, CARD + "Better.\n")
        self.name, self.kind, self.tag, self.private = "writer/qoq", "model", "v2", True
        self.token: str | None = "hf_write"
        self.replace = False
        publish(plan_release(self.old, self.name, "model"), self.token, "v1")
        self.first = self.repo.head.oid
        self.plan_again()
        hub.log.clear()

    @property
    def repo(self) -> Repo:
        return self.hub.repos[f"{self.kind}s", self.name]

    def plan_again(self) -> None:
        kind: RepoType = "dataset" if self.kind == "dataset" else "model"
        self.plan = plan_release(self.new, self.name, kind, private=self.private)

    def publish(self) -> None:
        publish(self.plan, self.token, self.tag, replace=self.replace)

    def elsewhere(self, name: str = "writer/fresh", card: str = "") -> None:
        """Publish to a repository that does not exist, perhaps with another card."""
        self.name = name
        if card:
            (self.new / "README.md").write_text(card)
        self.plan_again()

    def give(self, path: str, data: bytes) -> None:
        """Somebody else commits a file."""
        self.repo.commit("theirs", self.repo.head.files | {path: Blob(data, lfs=False)})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with hub_here(monkeypatch, tmp_path / "cache") as hub:
        yield World(hub, tmp_path, monkeypatch)


def is_old(world: World) -> None:
    assert world.repo.files == contents(world.old)
    assert world.repo.tags == {"v1": world.first}


def is_new(world: World) -> None:
    assert world.repo.files == contents(world.new)
    assert world.repo.tags["v2"] == world.repo.head.oid


def is_new_without_its_tag(world: World) -> None:
    assert world.repo.files == contents(world.new)
    assert world.repo.tags == {"v1": world.first}


def is_old_and_unasked(world: World) -> None:
    is_old(world)
    assert world.hub.log == []


def is_old_and_nothing_was_sent(world: World) -> None:
    is_old(world)
    assert not world.hub.asked("PUT|commit")


def is_not_there(world: World) -> None:
    assert ("models", world.name) not in world.hub.repos


def is_empty(world: World) -> None:
    assert world.repo.files == {} and world.repo.tags == {}
    assert not world.hub.asked("PUT /lfs|commit")


def is_theirs(path: str, data: bytes) -> Callable[[World], None]:
    def check(world: World) -> None:
        assert world.repo.files == contents(world.old) | {path: data}
        assert world.repo.tags == {"v1": world.first}

    return check


def failing(where: str, status: int = 0, **how: object) -> Callable[[World], None]:
    return lambda world: world.hub.fail(where, status, **how)


def with_token(token: str | None) -> Callable[[World], None]:
    return lambda world: setattr(world, "token", token)


def theirs_first(world: World) -> None:
    world.hub.fail("/commit/", act=lambda _: world.give("README.md", b"theirs"))


def lost_for_good(world: World) -> None:
    """The reply to the commit is lost, and the connection with it."""
    world.hub.fail("/commit/", lose="reply")
    world.hub.fail("GET /api/models/writer/qoq$", act=lambda _: None)  # the look before the commit
    world.hub.fail("GET /api/models/writer/qoq$", act=lambda _: None)
    world.hub.fail("GET /api/models/writer/qoq$", lose="request", times=9)


def verification_fails(world: World) -> None:
    world.hub.fail("GET .*/tree/", act=lambda _: None)  # the look before the commit
    world.hub.fail("GET .*/tree/", 503, times=9)


def damaged(world: World) -> None:
    """A file arrives as something else."""

    def damage(hub: HubServer) -> None:
        files = world.repo.head.files
        world.repo.commits[-1].files = files | {"run.json": Blob(b"{ }", lfs=False)}

    world.hub.fail("GET .*/tree/", act=lambda _: None)  # the look before the commit
    world.hub.fail("GET .*/tree/", act=damage)


def hidden(world: World) -> None:
    """A file that the repository itself ignores is left out by the Hub without a word."""
    world.give(".gitignore", b"run.json")
    world.replace = True


def public(world: World) -> None:
    world.repo.private = False


def foreign(world: World) -> None:
    world.give("notes.txt", b"mine")


def other_account_on_a_public_repository(world: World) -> None:
    world.repo.private = world.private = False
    world.token = "hf_other"
    world.plan_again()


def offline(world: World) -> None:
    world.patch.setattr(constants, "HF_HUB_OFFLINE", True)


def unreachable(world: World) -> None:
    world.patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def edited(world: World) -> None:
    (world.new / "run.json").write_text("{'seed': 1}")


def bad_card(world: World) -> None:
    world.elsewhere("writer/qoq", CARD.replace("apache-2.0", "[a, b]"))


def used_tag(world: World) -> None:
    world.tag = "v1"


def no_tag_name(world: World) -> None:
    world.tag = "main"


def not_to_create(world: World) -> None:
    world.elsewhere("someone/qoq")


def taken_meanwhile(world: World) -> None:
    world.elsewhere()
    world.hub.fail("/create", act=lambda hub: hub.create("models", world.name, private=False))


def created_public(world: World) -> None:
    """The owner's settings make every new repository public."""
    world.elsewhere()

    def create(kind: str, name: str, *, private: bool) -> Repo:
        return Store.create(world.hub, kind, name, private=False)

    world.patch.setattr(world.hub, "create", create)


def creation_lost(world: World) -> None:
    world.elsewhere()
    world.hub.fail("/create", lose="reply")


def gate_refused(world: World) -> None:
    world.elsewhere(card=GATE)
    world.hub.fail("/settings", 403)


def gate_ignored(world: World) -> None:
    world.elsewhere(card=GATE)
    world.hub.fail("/settings", 200)


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
        failing("whoami", 429), BusyError, r"busy \(429\)", is_old_and_nothing_was_sent
    ),
    "look: busy": Case(
        failing("GET /api/models/writer/qoq$", 502), BusyError, "502", is_old_and_nothing_was_sent
    ),
    "commit: busy": Case(failing("/commit/", 503), BusyError, "503"),
    "commit: rate limit": Case(failing("/commit/", 429), BusyError, "429"),
    "commit: connection lost before": Case(
        failing("/commit/", lose="request"), OfflineError, "connection"
    ),
    "commit: reply lost": Case(failing("/commit/", lose="reply"), None, "", is_new),
    "commit: reply and connection lost": Case(
        lost_for_good, OfflineError, "connection", is_new_without_its_tag
    ),
    "commit: no space left": Case(failing("/commit/", 413), HubError, "status 413"),
    "commit: somebody else first": Case(
        theirs_first, ConflictError, "changed writer/qoq", is_theirs("README.md", b"theirs")
    ),
    "check: busy": Case(verification_fails, BusyError, "503", is_new_without_its_tag),
    "check: a file damaged": Case(damaged, HubError, "run.json .* earlier state was restored"),
    "check: a file ignored": Case(
        hidden,
        HubError,
        "run.json .* earlier state was restored",
        is_theirs(".gitignore", b"run.json"),
        final=True,
    ),
    "tag: busy": Case(
        failing("/tag/", 500), BusyError, "tag v2 of .* published", is_new_without_its_tag
    ),
    "tag: reply lost": Case(failing("/tag/", lose="reply"), OfflineError, "tag v2", is_new),
    "tag: another release's": Case(
        used_tag, ConflictError, "v1 of .* another release", is_old_and_nothing_was_sent, final=True
    ),
    "tag: no name": Case(no_tag_name, ConflictError, "'main' is", is_old_and_unasked, final=True),
    "token: none": Case(with_token(None), TokenError, "No token", is_old_and_unasked),
    "token: unknown": Case(
        with_token("hf_wrong"), TokenError, "does not accept", is_old_and_nothing_was_sent
    ),
    "token: reads only": Case(
        with_token("hf_read"), TokenError, "only reads", is_old_and_nothing_was_sent
    ),
    "token: another account's, private": Case(
        with_token("hf_other"), TokenError, "may not", is_old_and_nothing_was_sent
    ),
    "token: another account's, public": Case(
        other_account_on_a_public_repository, TokenError, "may not"
    ),
    "repository: public": Case(
        public, ConflictError, "is public", is_old_and_nothing_was_sent, final=True
    ),
    "repository: other files": Case(
        foreign, ConflictError, "notes.txt", is_theirs("notes.txt", b"mine"), final=True
    ),
    "new repository: not allowed": Case(
        not_to_create, TokenError, "may not", is_not_there, final=True
    ),
    "new repository: taken meanwhile": Case(
        taken_meanwhile, ConflictError, "changed", is_empty, final=True
    ),
    "new repository: made public": Case(
        created_public, ConflictError, "is public", is_empty, final=True
    ),
    "new repository: reply lost": Case(creation_lost, OfflineError, "connection", is_empty),
    "gate: refused": Case(gate_refused, TokenError, "may not", is_empty),
    "gate: not closed": Case(gate_ignored, ConflictError, "could not be gated", is_empty),
    "network: offline mode": Case(offline, OfflineError, "HF_HUB_OFFLINE", is_old_and_unasked),
    "network: unreachable": Case(unreachable, OfflineError, "connection", is_old_and_unasked),
    "folder: edited after the plan": Case(
        edited, ConflictError, "has changed since", is_old_and_unasked
    ),
    "card: refused by the Hub": Case(
        bad_card, HubError, "license must be a string", is_old_and_nothing_was_sent, final=True
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
        repaired(world)
        world.publish()
        is_new(world)


def repaired(world: World) -> None:
    world.hub.faults.clear()
    world.token = "hf_write"
    world.patch.setattr(constants, "ENDPOINT", world.hub.address)
    world.patch.setattr(constants, "HF_HUB_OFFLINE", False)
    world.plan_again()
