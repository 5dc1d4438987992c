"""A release on the Hugging Face Hub: one commit and its tag, checked afterwards, all or nothing."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
)
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoFile
from huggingface_hub.utils import httpx

from qoq_lib.hub_errors import ConflictError, HubError, TokenError, explain, explained
from qoq_lib.publishing.plan import Plan, planned_files

_TAG = re.compile(r"(?!main$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_KEPT = {".gitattributes"}  # the Hub's own
_FAILURES = (httpx.HTTPError, OSError, RuntimeError, ValueError)

Tree = dict[str, str]
"""Path to hash: SHA-256 of a large file, git's SHA-1 of any other."""


@dataclass(frozen=True)
class Release:
    """What is on the Hub now, to be loaded by ``revision``, its commit, or by ``tag``.

    ``changed`` and ``removed`` count the files that were not as they are now.
    """

    repo_id: str
    repo_type: str
    revision: str
    tag: str | None
    url: str
    private: bool
    changed: int
    removed: int

    @property
    def new(self) -> bool:
        """Whether anything had to be changed for it."""
        return bool(self.changed or self.removed)

    def __str__(self) -> str:
        done = f"{self.changed} files changed, {self.removed} removed" if self.new else "no change"
        name = f" as {self.tag}" if self.tag else ""
        return f"{self.url}{name} at {self.revision[:12]}: {done}"


def publish(
    plan: Plan, token: str | None = None, tag: str | None = None, *, replace: bool = False
) -> Release:
    """Put a planned release on the Hub, whole or not at all, and check what arrived.

    The repository comes to mirror the folder in one commit on top of the state that was looked at;
    the hashes on the Hub are compared with the plan's; then the tag is made. What cannot be
    verified is taken back by a second commit. Publishing the same again changes nothing, and after
    an error the same call completes what is missing.

    Args:
        plan: from ``plan_release``; the folder must not have changed since.
        token: of the Hub, with write access; the one of ``hf auth login`` or HF_TOKEN by default.
        tag: the release's name for ``revision=``, such as ``v1.0.0``.
        replace: remove files that the repository holds and the release does not; else refuse.

    Raises:
        PlanError: the folder cannot be released any more.
        ConflictError: the folder has changed, the repository is public where private was asked,
            holds other files, was changed at the same time, or the tag is another release's.
        HubError: one of its kinds says what failed; either the earlier or the new release is
            visible then, never a part of one.
    """
    if tag is not None and not _TAG.fullmatch(tag):
        raise ConflictError(f"The tag {tag!r} is no name for a release: use one such as v1.0.0.")
    remote = _Remote(HfApi(token=token), plan)
    with explained(remote.subject):
        remote.check_token()
        _refuse_changes(plan)
        remote.open()
        if tag and (tagged := remote.tags().get(tag)):
            return remote.published_before(tag, tagged)
        return remote.release(tag, replace=replace)


def _refuse_changes(plan: Plan) -> None:
    if planned_files(plan.folder) != plan.files:
        raise ConflictError(f"{plan.folder} has changed since the plan was made: plan it again.")


class _Remote:
    """The repository of one plan."""

    def __init__(self, api: HfApi, plan: Plan) -> None:
        self.api = api
        self.plan = plan
        self.private = plan.private
        self.subject = f"{plan.repo_id} ({plan.repo_type})"
        self.names: dict[str, Any] = {"repo_id": plan.repo_id, "repo_type": plan.repo_type}

    @cached_property
    def expected(self) -> dict[str, set[str]]:
        return {file.path: {file.sha256, file.git_sha1} for file in self.plan.files}

    def check_token(self) -> None:
        login = self.api.whoami().get("auth", {}).get("accessToken", {})
        if login.get("role") == "read":
            raise TokenError(
                f"The token only reads, and publishing {self.subject} writes: make one with the "
                "role 'write' and log in with it ('hf auth login' or HF_TOKEN)."
            )

    def open(self) -> None:
        """Make sure of the repository, its privacy and its gate, before any file is sent."""
        try:
            info = self.info()
        except RepositoryNotFoundError:
            self.api.create_repo(**self.names, private=self.plan.private)
            info = self.info()
        if self.plan.private and not info.private:
            raise ConflictError(
                f"{self.subject} is public and a private release was asked for: make it private "
                "in its settings, or choose another name."
            )
        if self.plan.gated and not info.gated:
            self.api.update_repo_settings(**self.names, gated="manual")
            info = self.info()
        if self.plan.gated and not info.gated:
            raise ConflictError(
                f"{self.subject} could not be gated, as the terms of its sources ask: switch "
                "access requests on in its settings."
            )
        self.private = bool(info.private)

    def info(self) -> ModelInfo | DatasetInfo:
        return self.api.repo_info(**self.names)  # type: ignore[return-value]

    def tags(self) -> dict[str, str]:
        return {ref.name: ref.target_commit for ref in self.api.list_repo_refs(**self.names).tags}

    def tree(self, revision: str) -> Tree:
        items = self.api.list_repo_tree(**self.names, revision=revision, recursive=True)
        files = [item for item in items if isinstance(item, RepoFile) and item.path not in _KEPT]
        return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}

    def wrong(self, tree: Tree) -> list[str]:
        """Files of the plan that ``tree`` lacks or holds with another content."""
        return [path for path, hashes in self.expected.items() if tree.get(path) not in hashes]

    def strays(self, tree: Tree) -> list[str]:
        return sorted(set(tree) - set(self.expected))

    def published_before(self, tag: str, revision: str) -> Release:
        tree = self.tree(revision)
        if self.wrong(tree) or self.strays(tree):
            raise ConflictError(
                f"The tag {tag} of {self.subject} is another release: choose a new tag."
            )
        return self.released(revision, tag)

    def release(self, tag: str | None, *, replace: bool) -> Release:
        revision = parent = str(self.info().sha)
        tree = self.tree(parent)
        wrong, strays = self.wrong(tree), self.strays(tree)
        if strays and not replace:
            raise ConflictError(
                f"{self.subject} holds {len(strays)} files that are not of this release "
                f"({strays[0]}): publish with replace=True to remove them, or choose another name."
            )
        if wrong or strays:
            revision = self.commit(wrong, strays, parent)
            self.verify(revision, parent)
        if tag:
            with explained(f"the tag {tag} of {self.subject} (its files are published)"):
                self.api.create_tag(**self.names, tag=tag, revision=revision)
        return self.released(revision, tag, len(wrong), len(strays))

    def released(
        self, revision: str, tag: str | None, changed: int = 0, removed: int = 0
    ) -> Release:
        prefix = "datasets/" if self.plan.repo_type == "dataset" else ""
        url = f"{self.api.endpoint}/{prefix}{self.plan.repo_id}"
        facts = (self.plan.repo_id, self.plan.repo_type, revision, tag, url)
        return Release(*facts, self.private, changed, removed)

    def commit(self, wrong: list[str], strays: list[str], parent: str) -> str:
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, self.plan.folder / path) for path in wrong
        ]
        operations += [CommitOperationDelete(path) for path in strays]
        message = f"Release of {len(self.expected)} files"
        try:
            made = self.api.create_commit(
                **self.names, operations=operations, parent_commit=parent, commit_message=message
            )
        except _FAILURES as error:
            # The Hub may have made the commit and only its answer been lost.
            if landed := self.landed(parent):
                return landed
            raise explain(error, self.subject) from error
        return str(made.oid)

    def landed(self, parent: str) -> str | None:
        """The head, where it has moved from ``parent`` to exactly this release."""
        try:
            head = str(self.info().sha)
            tree = self.tree(head)
        except _FAILURES:  # what stopped the commit is the error to tell
            return None
        arrived = head != parent and not self.wrong(tree) and not self.strays(tree)
        return head if arrived else None

    def verify(self, revision: str, parent: str) -> None:
        """Compare the hashes of a commit with the plan's; on a difference restore ``parent``."""
        tree = self.tree(revision)
        if differing := self.wrong(tree) + self.strays(tree):
            self.restore(tree, revision, parent)
            raise HubError(
                f"{self.subject} did not receive {differing[0]} as it is here ({len(differing)} "
                "files in all), so its earlier state was restored: run this again."
            )

    def restore(self, tree: Tree, revision: str, parent: str) -> None:
        before = self.tree(parent)
        operations: list[CommitOperationCopy | CommitOperationDelete] = [
            CommitOperationCopy(path, path, src_revision=parent)
            for path, kept in before.items()
            if tree.get(path) != kept
        ]
        operations += [CommitOperationDelete(path) for path in tree if path not in before]
        self.api.create_commit(
            **self.names,
            operations=operations,
            parent_commit=revision,
            commit_message="Restore the state before an incomplete release",
        )
