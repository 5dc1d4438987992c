"""Assembled rows as the trainer's questions: chats with the images the model sees, in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from qoq_lib.data.prompts import AnswerStyle, to_messages
from qoq_lib.model.pixels import model_view

REWARD_COLUMNS = ("id", "domain", "dataset", "question", "options", "answers", "boxes")


def question_dataset(rows: Dataset, image_processor: Any, style: AnswerStyle) -> Dataset:
    """A data set of ``prompt`` (chat messages) and ``REWARD_COLUMNS``, made once and kept.

    Media cannot live in Arrow columns next to text parts, so the stored column is the row's number
    and a transform looks the chat up; images are already at the model's size, which keeps them
    small in memory and spares a decoding per rollout.
    """
    views = [model_view(row, image_processor) for row in rows]
    examples = [as_example(view, style) for view in views]

    def look_up(batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        chosen = [examples[index] for index in batch["index"]]
        return {name: [example[name] for example in chosen] for name in examples[0]}

    return Dataset.from_dict({"index": range(len(examples))}).with_transform(look_up)


def as_example(view: Mapping[str, Any], style: AnswerStyle) -> dict[str, Any]:
    """One row (from ``model_view``) as the trainer's example."""
    return {"prompt": to_messages(view, style)} | {name: view[name] for name in REWARD_COLUMNS}
