"""A release that is to replace another on a Hub, what can go wrong then, and what is seen after."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hub_releases import CARD, GATED, contents, write_release
from hub_server import HubServer
from hub_store import Blob, Repo, Store
from huggingface_hub import constants

from qoq_lib.publishing.hub import publish
from qoq_lib.publishing.plan import RepoType, plan_release

LATER = {"model.safetensors": b"\0later" * 200, "steps/1.safetensors": b"\0rows", "run.json": b"{}"}


class World:
    """A Hub that holds release v1, and release v2 in a folder, ready to be published."""

    def __init__(self, hub: HubServer, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.hub, self.patch = hub, patch
        self.old = write_release(folder / "old")
        self.new = write_release(folder / "new", LATER, CARD + "Better.\n")
        self.name, self.kind, self.tag, self.private = "writer/qoq", "model", "v2", True
        self.token: str | None = "hf_write"
        self.replace = False
        self.repair: Callable[[], object] = lambda: None
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

    def repaired(self) -> None:
        """Nothing goes wrong any more."""
        self.repair()
        self.hub.faults.clear()
        self.token = "hf_write"
        self.patch.setattr(constants, "ENDPOINT", self.hub.address)
        self.patch.setattr(constants, "HF_HUB_OFFLINE", False)
        self.plan_again()

    def give(self, path: str, data: bytes) -> None:
        """Somebody else commits a file."""
        self.repo.commit("theirs", self.repo.head.files | {path: Blob(data, lfs=False)})


def is_old(world: World) -> None:
    assert world.repo.files == contents(world.old)
    assert world.repo.tags == {"v1": world.first}


def is_new(world: World) -> None:
    assert world.repo.files == contents(world.new)
    assert world.repo.tags["v2"] == world.repo.head.oid


def is_new_without_its_tag(world: World) -> None:
    assert world.repo.files == contents(world.new)
    assert world.repo.tags == {"v1": world.first}


def nothing_was_asked(world: World) -> None:
    is_old(world)
    assert world.hub.log == []


def nothing_was_sent(world: World) -> None:
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


def edited_meanwhile(path: str, where: str) -> Callable[[World], None]:
    """A file is edited after it was checked and before it is sent, keeping its length."""

    def arrange(world: World) -> None:
        file = world.new / path
        content = file.read_bytes()
        wrong = content[:-1] + b"?"
        world.hub.fail(where, act=lambda _: file.write_bytes(wrong))
        world.repair = lambda: file.write_bytes(content)

    return arrange


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
    world.elsewhere(card=GATED)
    world.hub.fail("/settings", 403)


def gate_ignored(world: World) -> None:
    world.elsewhere(card=GATED)
    world.hub.fail("/settings", 200)
