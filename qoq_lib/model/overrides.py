"""Any value of ``configs/model`` from one string, as papermill's ``-p overrides`` hands it over."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from types import NoneType
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from qoq_lib.model.loading import LoadError, ModelSize, read_size

_BETWEEN = re.compile(r",(?![^\[]*\])")  # a comma that stands in no list


def override(size: ModelSize, text: str) -> ModelSize:
    """A copy of ``size`` with the values of ``text``: ``"training.rollouts=16, dtype=float32"``.

    Fields of a part have its name before them, lists stand in brackets, and values are YAML's
    (``null`` is ``None``). An empty text changes nothing.

    Raises:
        LoadError: something is not of the form ``name=value``, a name is unknown (with the nearest
            known one) or given twice, or a value does not fit its field.
    """
    values = size.model_dump()
    given = [part.strip() for part in _BETWEEN.split(text)] if text.strip() else []
    changes: dict[str, Any] = {}
    for part in given:
        name, value = _read(part)
        if name in changes:
            raise LoadError(f"overrides: {name} is given twice: leave one of them out.")
        changes[name] = value
        *parts, field = name.split(".")
        target = values
        for step in parts:
            target[step] = target = dict(target.get(step) or {})
        target[field] = value
    return read_size(values, "overrides")


def _read(part: str) -> tuple[str, Any]:
    name, equals, value = (piece.strip() for piece in part.partition("="))
    if not (name and equals and value):
        raise LoadError(
            f"overrides: {part!r} is not of the form name=value: write, for example, "
            "'training.rollouts=16, tuning=lora'."
        )
    known = list(_fields(ModelSize))
    if name not in known:
        raise LoadError(f"overrides: there is no {name!r}: {_advice(name, known)}")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise LoadError(f"overrides: the value of {name}, {value!r}, cannot be read.") from error


def _advice(name: str, known: list[str]) -> str:
    leaves = {field.split(".")[-1]: field for field in known}
    leaf = name.split(".")[-1]
    near = (
        [field for field in known if field.startswith(f"{name}.") or field.endswith(f".{leaf}")]
        or get_close_matches(name, known, n=1, cutoff=0.5)
        or [leaves[match] for match in get_close_matches(leaf, list(leaves), n=1)]
    )
    return f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(known)}."


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all values, without the size's own name; a part that may be one is one."""
    for name, field in model.model_fields.items():
        kinds = get_args(field.annotation) or (field.annotation,)
        parts = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if parts and set(kinds) <= {*parts, NoneType}:
            yield from _fields(parts[0], f"{prefix}{name}.")
        elif name != "name":
            yield prefix + name
