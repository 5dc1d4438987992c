"""Model folders: fetched from the Hub, their weight files opened and checked before any loading."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from qoq_lib.hub_errors import explained
from qoq_lib.runs import OneSentenceError

INDEX_FILE, WEIGHTS_FILE = "model.safetensors.index.json", "model.safetensors"
ADAPTER_FILE, ADAPTER_WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


class LoadError(OneSentenceError, RuntimeError):
    """A model cannot be loaded here; the message says what is missing."""


def fetch(name: str, revision: str | None = None, patterns: list[str] | None = None) -> Path:
    """``name`` where it is a folder, else the Hub repository of that name in the local cache.

    Raises:
        LoadError: there is no such folder, and no repository can have that name.
        HubError: its kinds tell a gated repository from a missing one and from being offline.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise LoadError(
            f"There is no folder {name}, and no name on the Hugging Face Hub is like that: check "
            "the path, or give 'owner/name'."
        ) from error
    at = f" at {revision}" if revision else ""
    with explained(f"{name}{at} (model, no folder here)"):
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; ``LoadError`` where it is missing or broken."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadError(f"{path} is missing: the folder holds no complete checkpoint.") from error
    except ValueError as error:
        raise LoadError(f"{path} is not valid JSON: copy or download it again.") from error
    if not isinstance(values, dict):
        raise LoadError(f"{path} holds no JSON object: copy or download it again.")
    return values


def open_weights(folder: Path) -> dict[str, Any]:
    """Every tensor of a checkpoint by name, still on disk: indexing one reads it into memory.

    Read with ``pread``, not ``mmap``: mapped pages of the files would stay in memory beside the
    converted copies, one and a half times the weights for bfloat16 files loaded as float32.

    Raises:
        LoadError: a file is missing, truncated or not in the safetensors format, or the index names
            a tensor that its file lacks.
    """
    if (folder / INDEX_FILE).is_file():
        index = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise LoadError(f"{folder / INDEX_FILE} lists no weights: copy or download it again.")
    else:
        index = dict.fromkeys(open_shard(folder / WEIGHTS_FILE).keys(), WEIGHTS_FILE)
    shards = {file: open_shard(folder / file) for file in sorted(set(index.values()))}
    held = {file: set(shard.keys()) for file, shard in shards.items()}
    for name, file in index.items():
        if name not in held[file]:
            raise LoadError(f"{folder / file} lacks {name}: copy or download the file again.")
    return {name: shards[file].get_slice(name) for name, file in index.items()}


def open_shard(path: Path) -> Any:
    """A safetensors reader, its header and length checked; ``LoadError`` names the bad file."""
    try:
        return safe_open(path, framework="pt", backend="pread")
    except FileNotFoundError as error:
        raise LoadError(f"The weight file {path} is missing: copy or download it again.") from error
    except (OSError, SafetensorError) as error:
        raise LoadError(
            f"The weight file {path} is truncated or corrupt: copy or download it again."
        ) from error


def refuse_gaps(source: str | Path, report: Mapping[str, Any], fresh: tuple[str, ...] = ()) -> None:
    """Raise ``LoadError`` unless the checkpoint gave every weight but those under ``fresh``.

    Args:
        source: what was loaded, for the message.
        report: ``from_pretrained``'s loading info, which would leave random numbers in the gaps.
        fresh: name prefixes of weights that the checkpoint is not expected to hold.
    """
    # A mismatched key comes with the shapes.
    wrong = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    gaps = [key for key in [*report["missing_keys"], *wrong] if not key.startswith(fresh)]
    strange = list(report["unexpected_keys"])
    if gaps or strange:
        what = "lacks or misshapes" if gaps else "holds an unknown weight,"
        count = len(gaps or strange)
        raise LoadError(
            f"{source} {what} {min(gaps or strange)} ({count} weights in all): it is no complete "
            "checkpoint of this architecture, so copy or download it again."
        )
