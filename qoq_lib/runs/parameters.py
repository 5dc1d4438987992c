"""The check of a notebook's parameters that papermill does not make.

papermill neither refuses an unknown name nor converts ``-p flag true`` (it hands over the string
``'true'``, which is truthy). Here the declaration in the parameters cell is the rule::

    model_size: str = "tiny"  # tiny | 3b | 7b | 32b; the model to train
    steps: int | None = None  # > 0; optimiser steps, None: from configs/model

A comment of the form ``a | b | c`` or ``a | b | c; help`` is the closed list of allowed values and
one that begins ``> n`` or ``>= n`` a lower bound; any other comment is free help.
"""

import ast
import io
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from qoq_lib.runs.files import OneSentenceError

_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (bool, int, float, str)}
_CONFIG = ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False)
_COMMON = {"run_id", "model_size", "seed"}
_CHOICES = re.compile(r"[^\s|;]+(\s*\|\s*[^\s|;]+)+\s*(;.*)?")
_BOUND = re.compile(r"(>=?)\s*(-?\d+(?:\.\d+)?)(?=[\s,;]|$)")


class ParameterError(OneSentenceError, ValueError):
    """A parameter is unknown, of the wrong type or outside its allowed values."""


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell.

    ``annotation`` is the type as written, ``kind`` the type itself, ``default`` the literal as
    written (not yet checked) and ``comment`` the text after ``#``.
    """

    name: str
    annotation: str
    kind: Any
    default: Any
    comment: str

    def read(self, value: Any) -> Any:
        """``value`` converted to the annotation; ``ParameterError`` when it does not fit."""
        try:
            result = self._convert(value)
        except ValueError as error:
            raise ParameterError(
                f"Parameter {self.name!r} must be of type '{self.annotation}', got {value!r}."
            ) from error
        if _CHOICES.fullmatch(self.comment):
            self._check_choice(result)
        elif (bound := _BOUND.match(self.comment)) and result is not None:
            self._check_bound(result, bound[1], float(bound[2]))
        return result

    def _convert(self, value: Any) -> Any:
        if isinstance(value, bool) and "bool" not in self.annotation:
            raise ValueError("pydantic would read True as the number 1")
        return TypeAdapter(self.kind, config=_CONFIG).validate_python(value)

    def _check_choice(self, value: Any) -> None:
        texts = [text.strip().strip("\"'") for text in self.comment.split(";")[0].split("|")]
        nullable = "None" in self.annotation
        if value in [
            None if nullable and text == "None" else self._convert(text) for text in texts
        ]:
            return
        near = _nearest(str(value), texts)
        raise ParameterError(
            f"Parameter {self.name!r} must be one of {', '.join(texts)}, got {value!r}"
            + (f"; did you mean {near!r}?" if near else ".")
        )

    def _check_bound(self, value: float, sign: str, limit: float) -> None:
        if value < limit or (sign == ">" and value == limit):
            raise ParameterError(
                f"Parameter {self.name!r} must be {sign} {limit:g}, got {value!r}."
            )


def declared_parameters(source: str) -> dict[str, Parameter]:
    """Read a parameters cell: one ``name: type = literal  # comment`` a line.

    Raises ``ParameterError`` naming the line that is anything else.
    """
    comments = _comments(source)
    parameters = {}
    for node in ast.parse(source).body:
        line = f"Line {node.lineno} of the parameters cell"
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            raise ParameterError(f"{line} is not of the form 'name: type = literal'.")
        name = node.target.id
        try:
            default = ast.literal_eval(node.value)  # type: ignore[arg-type]
            kind = _kind(node.annotation)
        except (ValueError, TypeError) as error:
            raise ParameterError(
                f"{line}: {name!r} needs a plain literal as its value and a type made of bool, "
                "int, float, str, list[...] and None."
            ) from error
        comment = comments.get(node.end_lineno or node.lineno, "")
        parameters[name] = Parameter(name, ast.unparse(node.annotation), kind, default, comment)
    return parameters


def read_parameters(declared: str, given: Mapping[str, Any]) -> SimpleNamespace:
    """Check ``given`` values against the parameters cell's source and fill in its defaults.

    Returns all parameters as attributes, converted to their annotations, in the cell's order.
    Raises ``ParameterError``: unknown name (with the nearest known one), wrong type, value that is
    not allowed. Defaults are held to the same rules, since in JupyterLab a user edits them.
    """
    parameters = declared_parameters(declared)
    for name in given:
        if name not in parameters:
            near = _nearest(name, list(parameters))
            raise ParameterError(
                f"Unknown parameter {name!r}"
                + (f": did you mean {near!r}? " if near else ": ")
                + f"This notebook takes {', '.join(parameters)}."
            )
    return SimpleNamespace(
        **{name: item.read(given.get(name, item.default)) for name, item in parameters.items()}
    )


def read_notebook_parameters(namespace: Mapping[str, Any]) -> SimpleNamespace:
    """``read_parameters`` for a running notebook, from its ``globals()``.

    The parameters cell is the last one run that holds typed assignments only and declares
    run_id, model_size and seed; papermill's cell comes after it and begins "# Parameters". Values
    are the notebook's own, so that a change made in another cell counts, and is checked.
    """
    declared, injected = _cells(namespace)
    names = _typed_names(declared) | _assigned_names(injected)
    given = {name: namespace[name] for name in names if name in namespace}
    return read_parameters(declared, given)


def changed_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``read_notebook_parameters`` that are not as the parameters cell has them."""
    defaults = read_parameters(_cells(namespace)[0], {})
    values = vars(read_notebook_parameters(namespace))
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}


def _cells(namespace: Mapping[str, Any]) -> tuple[str, str]:
    """The parameters cell and papermill's, which is empty where there is none."""
    history = [str(source) for source in namespace.get("In", [])]
    found = [n for n, source in enumerate(history) if _COMMON <= _typed_names(source)]
    if not found:
        raise ParameterError(
            "No parameters cell has run: it must declare run_id, model_size and seed, hold only "
            "lines of the form 'name: type = literal', and run before start_run."
        )
    injected = [cell for cell in history[found[-1] + 1 :] if cell.startswith("# Parameters")]
    return history[found[-1]], injected[-1] if injected else ""


def _typed_names(source: str) -> set[str]:
    """The names of a cell that holds typed assignments only; of any other cell, none."""
    try:
        nodes = ast.parse(source).body
    except SyntaxError:  # a cell with magics, or one that failed
        return set()
    if not all(isinstance(node, ast.AnnAssign) for node in nodes):
        return set()
    return _assigned_names(source)


def _assigned_names(source: str) -> set[str]:
    return {
        node.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _nearest(name: str, known: list[str]) -> str | None:
    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return matches[0] if matches else None


def _kind(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.Constant(value=None):
            return None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _kind(left) | _kind(right)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_kind(item)]  # type: ignore[misc]
    raise ValueError(f"unsupported annotation {ast.unparse(node)}")


def _comments(source: str) -> dict[int, str]:
    """Line number to the text of its comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }
