"""What a Hub answers to each request of its clients."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from hub_store import Blob, Commit, Refusal, Store, is_large, yaml_problem

KINDS = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}
NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kinds>models|datasets|spaces)/{NAME}"
GIT = rf"/(?:(?P<kinds>datasets|spaces)/)?{NAME}"


@dataclass
class Reply:
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass
class Call:
    """One request as the routes see it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Any
    body: bytes
    token: str

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body or b"{}"))


def reply(hub: Store, call: Call) -> Reply:
    """The right answer to ``call``; a refusal carries the Hub's error headers."""
    try:
        for method, pattern, route in ROUTES:
            found = re.fullmatch(pattern, call.path)
            if call.method in method.split() and found:
                return route(hub, call, **found.groupdict())
        raise Refusal(404, message=f"no such route: {call.method} {call.path}")
    except Refusal as no:
        headers = {"X-Error-Message": no.message} | ({"X-Error-Code": no.code} if no.code else {})
        return Reply(json.dumps({"error": no.message}).encode(), headers, no.status)


def answer(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)


def whoami(hub: Store, call: Call) -> Reply:
    user = hub.user(call.token)
    if not user:
        raise Refusal(401, message="Invalid username or password.")
    token = {"displayName": "test", "role": hub.users[call.token][1]}
    login = {"type": "access_token", "accessToken": token}
    return answer({"type": "user", "name": user, "fullname": user, "orgs": [], "auth": login})


def create(hub: Store, call: Call) -> Reply:
    asked = call.json()
    user = hub.user(call.token, writes=True)
    kinds = f"{asked.get('type') or 'model'}s"
    name = f"{asked.get('organization') or user}/{asked['name']}"
    if asked.get("organization") not in (None, user):
        raise Refusal(403, message="You don't have the rights to create a repo there")
    url = f"{hub.address}/{KINDS[kinds]}{name}"
    private = asked.get("visibility", "public") == "private" or bool(asked.get("private"))
    try:
        hub.create(kinds, name, private=private)
    except Refusal as no:
        body = json.dumps({"error": no.message, "url": url}).encode()
        return Reply(body, {"X-Error-Message": no.message}, no.status)
    return answer({"url": url})


def settings(hub: Store, call: Call, kinds: str, name: str) -> Reply:
    repo, asked = hub.repo(call.token, kinds, name, writes=True), call.json()
    repo.gated = asked.get("gated", repo.gated)
    repo.private = asked.get("visibility", "private" if repo.private else "public") == "private"
    return answer({})


def validate_yaml(hub: Store, call: Call) -> Reply:
    problem = yaml_problem(call.json()["content"])
    errors = [{"message": problem}] if problem else []
    return Reply(
        json.dumps({"errors": errors, "warnings": []}).encode(), status=400 if errors else 200
    )


def preupload(hub: Store, call: Call, kinds: str, name: str, rev: str) -> Reply:
    here = hub.repo(call.token, kinds, name, writes=True).at(rev).files
    hidden = here[".gitignore"].data.decode().split() if ".gitignore" in here else []
    files = []
    for asked in call.json()["files"]:
        path, known = asked["path"], here.get(asked["path"])
        large = is_large(path, asked["size"], base64.b64decode(asked["sample"]))
        oid = known and (known.sha256 if known.lfs else known.git_oid)
        mode = "lfs" if large else "regular"
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": path in hidden, "oid": oid})
    return answer({"files": files})


def lfs_batch(hub: Store, call: Call, kinds: str | None, name: str) -> Reply:
    hub.repo(call.token, kinds, name, writes=True)
    objects = []
    for item in call.json()["objects"]:
        steps = {"upload": {"href": f"{hub.address}/lfs/{item['oid']}"}}
        objects.append(item if item["oid"] in hub.large else item | {"actions": steps})
    return answer({"transfer": "basic", "objects": objects})


def lfs_put(hub: Store, call: Call, oid: str) -> Reply:
    if Blob(call.body, lfs=True).sha256 != oid:
        raise Refusal(400, message="the content does not have this hash")
    hub.large[oid] = call.body
    return Reply(b"")


def commit(hub: Store, call: Call, kinds: str, name: str, rev: str) -> Reply:
    repo = hub.repo(call.token, kinds, name, writes=True)
    lines = [json.loads(line) for line in call.body.splitlines()]
    for line in lines:
        if line["key"] == "file":
            line["value"]["content"] = base64.b64decode(line["value"]["content"])
    made = hub.apply(repo, lines)
    url = f"{hub.address}/{KINDS[kinds]}{name}/commit/{made.oid}"
    return answer({"success": True, "commitOid": made.oid, "commitUrl": url})


def tag(hub: Store, call: Call, kinds: str, name: str, rev: str) -> Reply:
    repo, wanted = hub.repo(call.token, kinds, name, writes=True), call.json()["tag"]
    if wanted in repo.tags:
        raise Refusal(409, message=f"Tag {wanted} already exists")
    repo.tags[wanted] = repo.at(rev).oid
    return answer({})


def info(hub: Store, call: Call, kinds: str, name: str, rev: str | None = None) -> Reply:
    repo = hub.repo(call.token, kinds, name)
    at = repo.at(rev or "main")
    files = [{"rfilename": path} for path in sorted(at.files)]
    facts = {"id": name, "modelId": name, "sha": at.oid, "private": repo.private, "tags": []}
    return answer({**facts, "gated": repo.gated, "siblings": files, "downloads": 0, "likes": 0})


def tree(hub: Store, call: Call, kinds: str, name: str, rev: str, under: str | None) -> Reply:
    repo = hub.repo(call.token, kinds, name)
    at, prefix = repo.at(rev), f"{under}/" if under else ""
    items = [item for item in repo.listing(at.files) if item["path"].startswith(prefix)]
    if under and not items:
        raise Refusal(404, "EntryNotFound", f"{under} does not exist on {rev}")
    if call.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
        items = [item for item in items if "/" not in item["path"][len(prefix) :]]
    return answer(items)


def paths_info(hub: Store, call: Call, kinds: str, name: str, rev: str) -> Reply:
    repo = hub.repo(call.token, kinds, name, reads=True)
    wanted = parse_qs(call.body.decode()).get("paths", [])
    items = repo.listing(repo.at(rev).files)
    return answer([item for item in items if item["path"] in wanted])


def refs(hub: Store, call: Call, kinds: str, name: str) -> Reply:
    repo = hub.repo(call.token, kinds, name)
    branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}]
    tags = [
        {"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid}
        for name, oid in repo.tags.items()
    ]
    return answer({"branches": branches, "tags": tags, "converts": []})


def resolve(hub: Store, call: Call, kinds: str | None, name: str, rev: str, path: str) -> Reply:
    repo = hub.repo(call.token, kinds, name, reads=True)
    at: Commit = repo.at(rev)
    if path not in at.files:
        headers = {"X-Repo-Commit": at.oid, "X-Error-Code": "EntryNotFound"}
        return Reply(b"Entry not found", headers, 404)
    blob = at.files[path]
    tag_of = blob.sha256 if blob.lfs else blob.git_oid
    headers = {"X-Repo-Commit": at.oid, "ETag": f'"{tag_of}"', "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("Range") or "")
    if not asked:
        return Reply(blob.data, headers)
    start, end = int(asked[1]), min(int(asked[2] or len(blob.data)), len(blob.data) - 1)
    headers["Content-Range"] = f"bytes {start}-{end}/{len(blob.data)}"
    return Reply(blob.data[start : end + 1], headers, 206)


ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("PUT", f"{API}/settings", settings),
    ("POST", f"{API}/preupload/(?P<rev>.+)", preupload),
    ("POST", f"{API}/commit/(?P<rev>.+)", commit),
    ("POST", f"{API}/tag/(?P<rev>.+)", tag),
    ("POST", f"{API}/paths-info/(?P<rev>[^/]+)", paths_info),
    ("GET", f"{API}/tree/(?P<rev>[^/]+)(?:/(?P<under>.+))?", tree),
    ("GET", f"{API}/refs", refs),
    ("GET", f"{API}/revision/(?P<rev>.+)", info),
    ("GET", API, info),
    ("POST", rf"{GIT}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", lfs_put),
    ("GET HEAD", f"{GIT}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", resolve),
]
