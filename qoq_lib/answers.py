r"""The one reader of model answers, shared by rewards, evaluation and published traces.

An answer is the last balanced ``\boxed{...}``, matched against the row's own options with case and
white space folded. The content is divided at separators so that as little as possible is left
unread and, after that, into the fewest labels: labels that contain "and", "&" or commas stay whole.
Boxes come from fenced JSON lists of ``{"bbox_2d": [x1, y1, x2, y2], "label"}``.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

# A policy under training writes anything, pages of spaces or braces too: nothing here may take more
# than linear time.
_FENCE = re.compile(r"```(?:json)?(.*?)```", re.DOTALL)
_SEPARATORS = r"(?:\s?(?:[,;&]|\band\b))+\s?"  # on folded text; "a, b, and c" is a list
_SEPARATOR = re.compile(_SEPARATORS)
_LABEL_END = re.compile(rf"\.?(?:{_SEPARATORS}|\Z)")
_BRACE = re.compile(r"\\(?:text|math)(?:bf|it|rm|sf|tt|normal)?\{|[{}]")
_ESCAPE = re.compile(r"\\([&%_#$])")

Box = tuple[float, float, float, float]
LARGEST = 1e6  # pixels; no image has a side like that


@dataclass(frozen=True)
class Answer:
    r"""What a completion says.

    Attributes:
        labels: options named in the final box, in order, without repeats.
        boxes: well-formed regions ``(x1, y1, x2, y2)`` in the model's pixels.
        valid: a ``\boxed{}`` with at least one option and nothing that is not an option, and,
            where the completion lists regions, each of them well formed.
        unread: whether the final box holds anything that is not an option.
    """

    labels: tuple[str, ...]
    boxes: tuple[Box, ...]
    valid: bool
    unread: bool


def read_answer(
    text: str, options: Sequence[str], aliases: Mapping[str, str] | None = None
) -> Answer:
    r"""Read a completion; anything unreadable gives an invalid ``Answer``, never an exception.

    Args:
        text: the completion.
        options: the labels that the question lists.
        aliases: other spellings and the option each stands for, from the data set's label set.
            Those of an option that the question does not list are ignored, and a spelling that is
            itself an option means that option.

    LaTeX around a label (``\text{...}``, ``\&``) and a full stop after it are not part of it.
    """
    boxed = last_boxed(text)
    labels, unread = ([], False) if boxed is None else _labels(boxed, _names(options, aliases))
    boxes, malformed = _read_boxes(text)
    valid = bool(labels) and not unread and not malformed
    return Answer(tuple(labels), tuple(boxes), valid, unread)


def last_boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}`` whose braces balance, or ``None``."""
    opened: list[int] = []
    last = None
    for brace in re.finditer(r"[{}]", text):
        if brace.group() == "{":
            opened.append(brace.end())
        elif opened:
            start = opened.pop()
            if text.endswith("\\boxed{", 0, start) and (last is None or start > last[0]):
                last = start, brace.start()
    return text[slice(*last)] if last else None


def prose(text: str) -> str:
    """The completion without its fenced blocks, white space folded to single spaces."""
    return " ".join(_FENCE.sub(" ", text).split())


def reasoning(text: str) -> str:
    """What stands between the think tags, to its end where it was cut off; empty without tags."""
    return text.partition("<think>")[2].partition("</think>")[0].strip()


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _names(options: Sequence[str], aliases: Mapping[str, str] | None) -> dict[str, str]:
    """What may be written, folded, and the option it stands for; the longest first."""
    listed = list(options)  # an array in a parquet table
    spelled = {
        _fold(alias): option for alias, option in (aliases or {}).items() if option in listed
    }
    names = spelled | {_fold(option): option for option in listed}
    return {name: names[name] for name in sorted(names, key=len, reverse=True) if name}


def _labels(content: str, names: Mapping[str, str]) -> tuple[list[str], bool]:
    """Options named in ``content`` from left to right, and whether anything else stands there.

    ``best[start]`` is the best reading of the text from ``start`` on: how many items are no option,
    how many are, the option that stands first, and where the next item starts.
    """
    text = _fold(_ESCAPE.sub(r"\1", _without_commands(content)))
    starts = [0, *(separator.end() for separator in _SEPARATOR.finditer(text)), len(text)]
    best: dict[int, tuple[int, int, str | None, int]] = {len(text): (0, 0, None, len(text))}
    for start, following in reversed([*pairwise(dict.fromkeys(starts))]):
        named = [(0, 1, option, end) for option, end in _named_at(text, start, names)]
        readings = [
            (unknown + best[end][0], known + best[end][1], option, end)
            for unknown, known, option, end in [*named, (1, 0, None, following)]
        ]
        best[start] = min(readings, key=lambda reading: reading[:2])
    found, start = [], 0
    while start < len(text):
        _, _, option, start = best[start]
        found += [] if option is None else [option]
    return list(dict.fromkeys(found)), best[0][0] > 0


def _named_at(text: str, start: int, names: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Options that may be meant by an item at ``start``, and where the next item would start."""
    for name, option in names.items():
        if text.startswith(name, start) and (end := _LABEL_END.match(text, start + len(name))):
            yield option, end.end()


def _without_commands(content: str) -> str:
    r"""``content`` with ``\text{X}`` and its like replaced by X; other braces stay."""
    kept: list[str] = []
    opened: list[bool] = []  # for each open brace, whether it is a command's
    position = 0
    for brace in _BRACE.finditer(content):
        if brace.group() == "}":
            is_command = bool(opened) and opened.pop()
        else:
            is_command = brace.group() != "{"
            opened.append(is_command)
        if is_command:
            kept.append(content[position : brace.start()])
            position = brace.end()
    return "".join([*kept, content[position:]])


def _read_boxes(text: str) -> tuple[list[Box], bool]:
    """Boxes of all fenced blocks, and whether a block or an entry was malformed."""
    boxes: list[Box] = []
    malformed = False
    for block in _FENCE.findall(text):
        try:
            entries = json.loads(block)
        except (ValueError, RecursionError):
            entries = None
        if not isinstance(entries, list):
            malformed = True
            continue
        for entry in entries:
            box = _read_box(entry)
            if box is None:
                malformed = True
            else:
                boxes.append(box)
    return boxes, malformed


def _read_box(entry: object) -> Box | None:
    corners = entry.get("bbox_2d") if isinstance(entry, dict) else None
    if not isinstance(corners, list) or len(corners) != 4:
        return None
    if not all(type(value) in (int, float) and abs(value) <= LARGEST for value in corners):
        return None  # also NaN, true/false, and integers too long for a float
    x1, y1, x2, y2 = (float(value) for value in corners)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
