"""What a Hub keeps: users, repositories, commits and stored files, in memory."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

ALWAYS_LFS = {".safetensors", ".parquet", ".bin", ".gguf", ".png", ".jpg", ".arrow", ".zip"}
USERS = {
    "hf_write": ("writer", "write"),
    "hf_read": ("writer", "read"),
    "hf_other": ("other", "write"),
}
LARGE = 10_000_000
ATTRIBUTES = b"".join(b"*%s filter=lfs\n" % suffix.encode() for suffix in sorted(ALWAYS_LFS))


@dataclass(frozen=True)
class Blob:
    """The bytes of a file and how they are stored."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\n"
        return f"{text}size {len(self.data)}\n".encode()

    @property
    def git_oid(self) -> str:
        content = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


Tree = dict[str, Blob]


@dataclass
class Commit:
    oid: str
    title: str
    files: Tree


@dataclass
class Refusal(Exception):
    """A reply that is not 200, with the Hub's own error headers."""

    status: int
    code: str = ""
    message: str = ""


@dataclass
class Repo:
    """One repository: a line of commits, the newest last, and names for some of them."""

    kind: str
    name: str
    private: bool
    gated: str | bool = False
    granted: set[str] = field(default_factory=set)
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """What a visitor of ``main`` sees, without the Hub's own attributes file."""
        return {
            path: blob.data for path, blob in self.head.files.items() if path != ".gitattributes"
        }

    def commit(self, title: str, files: Tree) -> Commit:
        oid = hashlib.sha1(f"{self.name} {len(self.commits)} {title}".encode()).hexdigest()
        self.commits.append(Commit(oid, title, files))
        return self.head

    def at(self, revision: str) -> Commit:
        wanted = {"main": self.head.oid, **self.tags}.get(revision, revision)
        for one in self.commits:
            if one.oid == wanted:
                return one
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def listing(self, files: Tree) -> list[dict[str, Any]]:
        """Files and folders as the tree and paths-info answers hold them."""
        folders = {str(up) for path in files for up in PurePosixPath(path).parents} - {"."}
        items: list[dict[str, Any]] = [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            for path in sorted(folders)
        ]
        return items + [entry(path, blob) for path, blob in sorted(files.items())]


def entry(path: str, blob: Blob) -> dict[str, Any]:
    item = {"type": "file", "path": path, "oid": blob.git_oid, "size": len(blob.data)}
    if blob.lfs:
        stored = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
        item["lfs"] = stored
    return item


@dataclass
class Store:
    """All repositories by (kind, name), tokens as (user, role), and the large files uploaded."""

    address: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    users: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(USERS))
    large: dict[str, bytes] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def user(self, token: str, *, writes: bool = False) -> str:
        """Whose token it is; 401 for an unknown one, 403 where it may not write."""
        if token and token not in self.users:
            raise Refusal(401, message="Invalid credentials in Authorization header")
        user, role = self.users.get(token, ("", ""))
        if writes and role != "write":
            raise Refusal(403, message="You don't have the rights to write here")
        return user

    def repo(
        self, token: str, kinds: str | None, name: str, *, reads: bool = False, writes: bool = False
    ) -> Repo:
        """The repository, if the caller may see it, ``reads`` its files or ``writes`` to it."""
        user = self.user(token)
        repo, owned = self.repos.get((kinds or "models", name)), name.split("/")[0] == user
        if repo is None or repo.private and not owned:
            raise Refusal(404 if user else 401, "RepoNotFound", "Repository not found")
        if writes:
            self.user(token, writes=True)
        if writes and not owned:
            raise Refusal(403, message="You don't have the rights to write to this repo")
        if reads and repo.gated and not owned and user not in repo.granted:
            raise Refusal(403 if user else 401, "GatedRepo", "Access to this repo is restricted")
        return repo

    def create(self, kind: str, name: str, *, private: bool = True) -> Repo:
        if (kind, name) in self.repos:
            raise Refusal(409, message="You already created this repo")
        repo = self.repos[kind, name] = Repo(kind, name, private)
        repo.commit("initial commit", {".gitattributes": Blob(ATTRIBUTES, lfs=False)})
        return repo

    def apply(self, repo: Repo, lines: list[dict[str, Any]]) -> Commit:
        """One commit: all of its operations or none."""
        with self.lock:
            header = lines[0]["value"]
            if header.get("parentCommit") not in (None, repo.head.oid):
                raise Refusal(412, message="A commit has happened since. Please refresh.")
            files = dict(repo.head.files)
            for line in lines[1:]:
                self._operate(files, line["key"], line["value"])
            return repo.commit(header["summary"], files)

    def _operate(self, files: Tree, key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = Blob(value["content"], lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in self.large:
                raise Refusal(400, message=f"LFS pointer of {path} points to a missing object")
            files[path] = Blob(self.large[value["oid"]], lfs=True)
        elif path not in files:
            raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
        else:
            del files[path]


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub keeps a file outside git: by name, by size or because it is binary."""
    return size > 0 and (
        PurePosixPath(path).suffix in ALWAYS_LFS or size > LARGE or b"\0" in sample
    )


def yaml_problem(text: str) -> str:
    """What is wrong with the front matter of a card; empty where nothing is."""
    if not text.startswith("---\n"):
        return ""
    try:
        values = yaml.safe_load(text.split("---\n")[1])
    except yaml.YAMLError as error:
        return f"front matter is not YAML: {error}"
    known = isinstance(values, dict) and isinstance(values.get("license", ""), str)
    return "" if known else f"license must be a string: {json.dumps(values)[:80]}"
