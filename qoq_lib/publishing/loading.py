"""Traces back from the Hub or from a folder, in one call."""

from pathlib import Path
from typing import Any, Literal, overload

import pyarrow as pa
from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from qoq_lib.hub_errors import explained
from qoq_lib.publishing.trace_rows import CASES, CHAT, group_features, sample_features
from qoq_lib.runs import OneSentenceError

COLUMNS = {
    "default": tuple(CHAT),
    "all": tuple(sample_features(())),
    "rl_steps": tuple(group_features(())),
    "cases": tuple(CASES),
}
"""What each configuration of a trace set holds at least."""


class TracesError(OneSentenceError, ValueError):
    """What is there is no trace set, or not the asked part of one; the message says what is."""


@overload
def load_traces(
    repo_or_path: str | Path,
    config: str = ...,
    revision: str | None = ...,
    *,
    split: str = ...,
    streaming: Literal[False] = ...,
) -> Dataset: ...
@overload
def load_traces(
    repo_or_path: str | Path,
    config: str = ...,
    revision: str | None = ...,
    *,
    split: str = ...,
    streaming: Literal[True],
) -> IterableDataset: ...
def load_traces(
    repo_or_path: str | Path,
    config: str = "default",
    revision: str | None = None,
    *,
    split: str = "train",
    streaming: bool = False,
) -> Any:
    """Reasoning traces of a Hub data set, or of a folder that ``write_traces`` wrote.

    Only the files of that configuration and split are downloaded. They stay in the cache of the
    Hugging Face libraries, by revision: later calls work offline, and a revision that is not there
    is never answered with another one. The rows are mapped from disk, not held in memory.

    Args:
        repo_or_path: ``owner/name`` or a folder.
        config: ``default`` (chats of correct, well-formed answers), ``all`` (every sampled answer),
            ``rl_steps`` (by training step, a row per group) or ``cases`` (the questions, with
            images and ECGs where they may be shared); columns: ``trace_rows``.
        revision: branch, tag or commit of the Hub data set; pin it to get the same rows for ever.
        split: ``train`` or, of ``all``, ``test``: answers on held-out patients.
        streaming: read rows as they are asked for instead of downloading first.

    Raises:
        TracesError: there is no such configuration or split, or it is no trace set.
        HubError: its kinds tell a gated repository from a missing one and from being offline.
    """
    if config not in COLUMNS:
        raise TracesError(f"Unknown configuration {config!r}: use one of {', '.join(COLUMNS)}.")
    pattern = f"data/{config}/{split}-*.parquet"
    folder = Path(repo_or_path).expanduser()
    if folder.is_dir():
        return _rows(str(folder), folder.name, config, split, streaming)
    name = _repository(str(repo_or_path))
    at = f" at {revision}" if revision else ""
    # datasets itself answers a revision that it cannot reach with whatever its cache holds.
    with explained(f"{name}{at} (data set, no folder here)"):
        if streaming:
            commit = HfApi().dataset_info(name, revision=revision).sha  # the same for all shards
            source = f"hf://datasets/{name}@{commit}"
        else:
            source = snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=pattern
            )
        return _rows(source, name, config, split, streaming)


def _repository(name: str) -> str:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise TracesError(
            f"There is no folder {name}, and no name on the Hugging Face Hub is like that: check "
            "the path, or give 'owner/name'."
        ) from error
    return name


def _rows(source: str, name: str, config: str, split: str, streaming: bool) -> Any:
    """``source`` is a folder, or the address of one on the Hub."""
    absent = TracesError(
        f"{name} holds no traces of configuration {config!r} and split {split!r}: look at its card."
    )
    pattern = f"data/{config}/{split}-*.parquet"
    files: Any = f"{source}/{pattern}"
    if "://" not in source:
        files = [str(path) for path in sorted(Path(source).glob(pattern))]
        if not files:
            raise absent
    try:
        rows = load_dataset("parquet", data_files={split: files}, split=split, streaming=streaming)
    except (DatasetGenerationError, pa.ArrowInvalid) as error:
        raise TracesError(
            f"A file {pattern} of {name} is damaged: download or write it again."
        ) from error
    except FileNotFoundError as error:
        raise absent from error
    except ValueError as error:  # datasets' word for a pattern on the Hub that matches nothing
        if "valid data file" not in str(error):
            raise
        raise absent from error
    missing = set(COLUMNS[config]) - set(rows.column_names or ())
    if missing:
        raise TracesError(
            f"{name} is no trace set of this package: its configuration {config!r} lacks the "
            f"columns {', '.join(sorted(missing))}."
        )
    return rows
