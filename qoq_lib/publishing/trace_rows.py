"""The rows of a published trace set: what each configuration holds, made from a run's tables.

``all`` has a row per sampled answer, ``rl_steps`` a row per group (the rollouts of one question at
one step, as lists), ``default`` a chat per correct and well-formed answer, ``cases`` a row per
question with its image or ECG where that may be shared.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, Image, List, Value

from qoq_lib.answers import read_answer
from qoq_lib.data.prompts import SYSTEM_TURN, AnswerStyle, user_text

_TEXTS, _BOXES = List(Value("string")), List(List(Value("float64")))
_TEXT, _NUMBER, _COUNT = Value("string"), Value("float64"), Value("int64")

QUESTION = {
    "id": _TEXT,
    "domain": _TEXT,
    "dataset": _TEXT,
    "source_record": _TEXT,
    "question": _TEXT,
    "options": _TEXTS,
    "answers": _TEXTS,
    "image_ref": _TEXTS,
    "ecg_ref": _TEXT,
}
"""What every configuration says of the question; the refs are SHA-256 of image files and signal."""

ORIGIN = {"model": _TEXT, "model_revision": _TEXT, "run_id": _TEXT, "step": _COUNT}
_SAID = {"completion": _TEXT, "reasoning": _TEXT, "final_answer": _TEXTS, "boxes": _BOXES}
_RESULT = {"correct": Value("bool"), "finish_reason": _TEXT, "n_tokens": _COUNT}
_DRPO = {
    "weight": _NUMBER,
    "cluster": _COUNT,
    "domain_temperature": _NUMBER,
    "cluster_temperature": _NUMBER,
}

CHAT = Features(
    {
        **{name: QUESTION[name] for name in ("id", "domain", "dataset", "source_record")},
        "messages": List({"role": _TEXT, "content": _TEXT}),
        **{name: QUESTION[name] for name in ("answers", "image_ref", "ecg_ref")},
        **ORIGIN,
        "sample": _COUNT,
        "reward": _NUMBER,
        "n_tokens": _COUNT,
    }
)
"""The configuration ``default``."""

CASES = Features(
    {
        **QUESTION,
        "split": _TEXT,
        "image_size": List(Value("int32")),
        "images": List(Image()),
        "boxes": _BOXES,
        "ecg": List(List(Value("float32"))),
        "ecg_leads": _TEXTS,
        "ecg_rate_hz": Value("float32"),
        "report": _TEXT,
        "license": _TEXT,
    }
)
"""The configuration ``cases``. ``image_size`` is width and height of the first image as the model
saw it, which all boxes, a completion's too, are in the pixels of; the images are as stored."""

NEEDED = (
    *("id", "domain", "dataset", "question", "options", "answers", "step", "sample"),
    *("completion", "reward", "correct"),
)
"""Columns without which rollouts are not traces; what else a version did not write is null."""


def sample_features(rewards: Sequence[str]) -> Features:
    """The configuration ``all``; ``rewards`` are the names of the components."""
    components = {name: _NUMBER for name in (*rewards, "reward", "advantage")}
    last = {**_RESULT, "seed": _COUNT}
    return Features({**QUESTION, **ORIGIN, "sample": _COUNT, **_SAID, **components, **last})


def group_features(rewards: Sequence[str]) -> Features:
    """The configuration ``rl_steps``: the columns of a rollout are lists, a value per rollout."""
    components = {name: _NUMBER for name in (*rewards, "reward", "advantage")}
    rollout = {"sample": _COUNT, **_SAID, **components, **_RESULT}
    lists = {name: List(kind) for name, kind in rollout.items()}
    return Features({**QUESTION, **ORIGIN, **lists, **_DRPO, "seed": _COUNT})


def as_features(table: pa.Table, features: Features) -> pa.Table:
    """The table with exactly these columns; those it lacks are null."""
    schema = features.arrow_schema
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def grouped(table: pa.Table, features: Features) -> pa.Table:
    """The rollouts of one step, a row per group in the order in which they were asked.

    A question that a step asks twice makes two groups.
    """
    keys = table.select(["id", "sample"]).to_pandas()
    asked = keys.groupby(["id", "sample"]).cumcount()
    number = keys.assign(asked=asked).groupby(["id", "asked"], sort=False).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(number[order]) != 0]) if len(order) else order
    offsets = pa.array(np.r_[starts, len(order)], pa.int32())
    rows = table.take(pa.array(order)).combine_chunks()
    first = rows.take(pa.array(starts))
    columns = {}
    for field in features.arrow_schema:
        if field.name not in rows.column_names:
            continue
        if isinstance(features[field.name], List) and field.name not in QUESTION:
            values = rows[field.name].cast(field.type.value_type).combine_chunks()
            columns[field.name] = pa.ListArray.from_arrays(offsets, _one(values))
        else:
            columns[field.name] = first[field.name]
    return as_features(pa.table(columns), features)


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


class Chats:
    """Correct, well-formed and whole answers as chats, each answer to a question once.

    Args:
        style: how the questions were put.
        reports: of the questions that came with one, by id.
    """

    def __init__(self, style: AnswerStyle, reports: Mapping[str, str]) -> None:
        self._style, self._reports = style, reports
        self._seen: set[bytes] = set()
        self._before = [SYSTEM_TURN] if style == "reasoning" else []

    def of(self, table: pa.Table) -> pa.Table:
        """The rows of ``CHAT`` that these rollouts (``sample_features``) give."""
        cut = pc.fill_null(pc.equal(table["finish_reason"], "length"), False)
        table = table.filter(pc.and_(pc.fill_null(table["correct"], False), pc.invert(cut)))
        names = ["id", "question", "options", "completion"]
        rows = table.select(names).to_pylist()
        kept = [n for n, row in enumerate(rows) if self._is_new(row) and _is_well_formed(row)]
        chosen = table.take(pa.array(kept, pa.int64()))
        messages = pa.array(
            [self._chat(rows[n]) for n in kept], CHAT.arrow_schema.field("messages").type
        )
        return as_features(chosen.append_column("messages", messages), CHAT)

    def _is_new(self, row: Mapping[str, str]) -> bool:
        key = sha256(f"{row['id']}\0{row['completion']}".encode()).digest()[:12]
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _chat(self, row: Mapping[str, str]) -> list[dict[str, str]]:
        text = user_text(row["question"], self._reports.get(row["id"]), self._style)
        user = {"role": "user", "content": text}
        return [*self._before, user, {"role": "assistant", "content": row["completion"]}]


def _is_well_formed(row: Mapping[str, str]) -> bool:
    return read_answer(row["completion"], row["options"]).valid
