r"""The words the model is asked with: question templates, option list and answer format.

The options always stand in the question. The answer format is the package's one convention
(README, "Answer format"): optional ``<think>…</think>``, an optional fenced JSON list of boxes, and
the final labels in ``\boxed{}``.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from qoq_lib.data.example import ecg_array
from qoq_lib.domains import DOMAINS

AnswerStyle = Literal["brief", "located", "reasoning"]
Task = Literal["diagnosis", "perception", "grounding", "tissue", "length_of_stay", "mortality"]

TASKS: dict[Task, str] = {
    "diagnosis": "which diagnosis?",
    "perception": "which pattern is visible?",
    "grounding": "draw a box around each structure of the list.",
    "tissue": "which tissue covers most of the image?",
    "length_of_stay": (
        "the text, the ECG and the chest X-ray are of the first 48 hours of a hospital stay. How "
        "many completed days will the stay last?"
    ),
    "mortality": (
        "the text, the ECG and the chest X-ray are of the first 48 hours of a hospital stay. Does "
        "the patient die or leave for a hospice within these hours?"
    ),
}
"""What a task asks, after the title of the domain and before the options."""

ANSWER_FORMAT: dict[AnswerStyle, str] = {
    "brief": "Answer in \\boxed{}.",
    "located": "Draw a box around the largest lesion, then answer in \\boxed{}.",
    "reasoning": (
        "First think it through between <think> and </think>. While thinking, list each region "
        "that matters for the diagnosis in a ```json block, as a list of objects with the keys "
        '"bbox_2d": [x1, y1, x2, y2] in pixels of the image and "label". Then give the final '
        "answer as \\boxed{label}, with labels separated by commas where several apply."
    ),
}

COORDINATE_STEP = 7
"""Pixels: ``located`` answers are taught with boxes whose coordinates are multiples of this."""

REGION_START = '```json\n[{"bbox_2d": ['
REGION_END = '], "label": "lesion"}]\n```\n'

_SEXES = {"F": "female", "M": "male"}

SYSTEM_TURN = {"role": "system", "content": "You are a helpful assistant."}
"""Qwen2.5-VL's default system turn, which its published checkpoints were trained with."""


def task_question(task: Task, domain: str, options: list[str]) -> str:
    """The question of ``task`` about one case of ``domain``, with the options listed."""
    return with_options(f"{DOMAINS[domain].title}: {TASKS[task]}", options)


def shuffled(options: list[str], seed: int, row_id: str) -> list[str]:
    """The options in an order that depends on ``seed`` and ``row_id`` alone."""
    return random.Random(f"{seed}/{row_id}").sample(options, len(options))


def with_patient(row: Mapping[str, Any]) -> dict[str, Any]:
    """``row`` with sex and age before its question, as far as they are known.

    ``Patient: female, 63 years.``; age in completed years. A choice of the assembly, so that
    training, evaluation and published traces all have the question that was asked.
    """
    known = [_SEXES[row["sex"]]] if row["sex"] in _SEXES else []
    known += [] if row["age_years"] is None else [f"{int(row['age_years'])} years"]
    patient = f"Patient: {', '.join(known)}.\n" if known else ""
    return {**row, "question": patient + row["question"]}


def user_text(question: str, report: str | None, style: AnswerStyle) -> str:
    """The text part of a user turn: report where there is one, question, answer format."""
    parts = [f"Report: {report}"] if report else []
    return "\n".join([*parts, question, ANSWER_FORMAT[style]])


def boxed(labels: list[str]) -> str:
    r"""The final answer as it is to be written: ``\boxed{a, b}``."""
    return f"\\boxed{{{', '.join(labels)}}}"


def answer_text(labels: list[str], box: Sequence[float] | None, style: AnswerStyle) -> str:
    r"""The answer as a model is taught to write it.

    ``located`` puts ``box`` ``[x1, y1, x2, y2]`` (model pixels; multiples of ``COORDINATE_STEP``)
    in a fenced JSON list before the final answer; ``None`` gives no block.
    """
    if style != "located" or box is None:
        return boxed(labels)
    corners = ", ".join(f"{value:.0f}" for value in box)
    return f"{REGION_START}{corners}{REGION_END}{boxed(labels)}"


def with_options(stem: str, options: list[str]) -> str:
    """A question with the options that it is to be answered from."""
    return f"{stem}\nOptions: {'; '.join(options)}"


def to_messages(row: Mapping[str, Any], style: AnswerStyle) -> list[dict[str, Any]]:
    """A row as a chat of one user turn: images, then the ECG, then report, question and format."""
    content: list[dict[str, Any]] = [{"type": "image", "image": im} for im in row["images"] or []]
    if (ecg := ecg_array(row)) is not None:
        content.append(
            {"type": "ecg", "ecg": ecg, "leads": row["ecg_leads"], "rate_hz": row["ecg_rate_hz"]}
        )
    text = user_text(row["question"], row["report"], style)
    return one_turn([*content, {"type": "text", "text": text}], style)


def one_turn(content: list[dict[str, Any]], style: AnswerStyle) -> list[dict[str, Any]]:
    """A chat of one user turn with these parts, after the system turn where the style has one."""
    user = {"role": "user", "content": content}
    return [SYSTEM_TURN, user] if style == "reasoning" else [user]
