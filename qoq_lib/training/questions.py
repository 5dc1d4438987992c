"""Assembled rows as the trainer's questions: chats with the images the model sees, in memory."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, List

from qoq_lib.data.example import ecg_array
from qoq_lib.data.prompts import AnswerStyle, to_messages
from qoq_lib.model.pixels import model_view

REWARD_COLUMNS = ("id", "domain", "dataset", "question", "options", "answers", "boxes")


def question_dataset(rows: Dataset, image_processor: Any, style: AnswerStyle) -> Dataset:
    """A data set of ``prompt`` (chat messages), ``REWARD_COLUMNS`` and the hashes of the media.

    Media cannot live in Arrow columns next to text parts, so the stored column is the row's number
    and a transform looks the chat up; images are already at the model's size, which keeps them
    small in memory and spares a decoding per rollout.
    """
    examples = [
        as_example(model_view(row, image_processor), style) | refs
        for row, refs in zip(rows, media_refs(rows), strict=True)
    ]

    def look_up(batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        chosen = [examples[index] for index in batch["index"]]
        return {name: [example[name] for example in chosen] for name in examples[0]}

    return Dataset.from_dict({"index": range(len(examples))}).with_transform(look_up)


def media_refs(rows: Dataset) -> Iterator[dict[str, Any]]:
    """``image_ref`` (one SHA-256 per stored image file) and ``ecg_ref`` (of the float32 signal)."""
    for row in rows.cast_column("images", List(Image(decode=False))):
        ecg = ecg_array(row)
        yield {
            "image_ref": [_sha256_of(image) for image in row["images"] or []],
            "ecg_ref": None if ecg is None else sha256(ecg.tobytes()).hexdigest(),
        }


def _sha256_of(image: Mapping[str, Any]) -> str:
    return sha256(image["bytes"] or Path(image["path"]).read_bytes()).hexdigest()


def as_example(view: Mapping[str, Any], style: AnswerStyle) -> dict[str, Any]:
    """One row (from ``model_view``) as the trainer's example."""
    return {"prompt": to_messages(view, style)} | {name: view[name] for name in REWARD_COLUMNS}
