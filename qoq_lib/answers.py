r"""The one reader of model answers, shared by rewards, evaluation and published traces.

An answer is the last balanced ``\boxed{...}``, matched against the row's own options: case and
white space are folded, and options are matched longest first, so labels that contain "and", "&" or
commas stay whole. Boxes come from fenced JSON lists of ``{"bbox_2d": [x1, y1, x2, y2], "label"}``.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

# A policy under training writes anything, pages of spaces or braces too: nothing here may take more
# than linear time.
_FENCE = re.compile(r"```(?:json)?(.*?)```", re.DOTALL)
_SEPARATOR = re.compile(r"(?:\s?(?:[,;&]|\band\b))+\s?")  # on folded text; "a, b, and c" is a list

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
    """

    labels: tuple[str, ...]
    boxes: tuple[Box, ...]
    valid: bool


def read_answer(text: str, options: Sequence[str]) -> Answer:
    """Read a completion; anything unreadable gives an invalid ``Answer``, never an exception."""
    boxed = last_boxed(text)
    labels, unknown = _match_options(boxed, options) if boxed is not None else ([], False)
    boxes, malformed = _read_boxes(text)
    return Answer(tuple(labels), tuple(boxes), bool(labels) and not unknown and not malformed)


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


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _match_options(content: str, options: Sequence[str]) -> tuple[list[str], bool]:
    """Options named in ``content`` from left to right, and whether anything else stands there."""
    folded = sorted(((_fold(option), option) for option in options), key=lambda pair: -len(pair[0]))
    rest, found, unknown = _fold(content), [], False
    while rest:
        for name, option in folded:
            end = len(name)
            if name and rest.startswith(name) and (rest == name or _SEPARATOR.match(rest, end)):
                found.append(option)
                break
        else:
            unknown = True
            end = 0
        separator = _SEPARATOR.search(rest, end)
        rest = rest[separator.end() :] if separator else ""
    return list(dict.fromkeys(found)), unknown


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
