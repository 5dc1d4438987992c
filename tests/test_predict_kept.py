"""Predictions on disk: what is kept is not asked again, what was made otherwise is made anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from chats import Tiny
from datasets import Dataset
from test_predict import ask

from qoq_lib.data.phantom import make_phantom
from qoq_lib.evaluation import predict as module
from qoq_lib.evaluation.parts import Parts
from qoq_lib.model.tiny import tiny_model


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Eight questions of three modalities."""
    return make_phantom(200, seed=0).select(range(8))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that were generated; a batch after the second stops as a kill."""
    sizes: list[int] = []
    generate: Callable[..., torch.Tensor] = module._generate

    def watched(model: Any, processor: Any, views: list[Any], *rest: Any) -> torch.Tensor:
        sizes.append(len(views))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return generate(model, processor, views, *rest)

    monkeypatch.setattr(module, "_generate", watched)
    return sizes


def test_after_a_kill_only_what_is_missing_is_asked(
    loud: Tiny, rows: Dataset, tmp_path: Path, counted: list[int]
) -> None:
    path, sampled = tmp_path / "trained.parquet", {"temperature": 1.0, "seed": 3}
    with pytest.raises(KeyboardInterrupt):
        ask(loud, rows, path=path, **sampled)
    assert not path.exists() and len(list(tmp_path.glob(".trained.*.parts/*.parquet"))) == 2
    resumed = ask(loud, rows, path=path, **sampled)
    assert counted == [3, 3, 2, 2]
    assert [found.name for found in tmp_path.iterdir()] == ["trained.parquet"]
    whole = ask(loud, rows, **sampled)
    for name in ("id", "completion", "prompt_hash"):
        assert resumed[name].tolist() == whole[name].tolist()


def test_parts_of_other_weights_or_settings_are_not_gone_on_with(
    loud: Tiny, rows: Dataset, tmp_path: Path, counted: list[int]
) -> None:
    path = tmp_path / "trained.parquet"
    with pytest.raises(KeyboardInterrupt):
        ask(loud, rows, path=path)
    ask(tiny_model(1), rows, path=path)
    assert counted[3:] == [3, 3, 2]
    assert [found.name for found in tmp_path.iterdir()] == ["trained.parquet"]


def test_a_finished_file_is_not_asked_again(
    loud: Tiny, rows: Dataset, tmp_path: Path, counted: list[int]
) -> None:
    two, options = rows.select(range(2)), {"path": tmp_path / "trained.parquet", "logprobs": True}
    first = ask(loud, two, **options)
    corrected = two.map(lambda row: {"answers": row["options"][:1]})
    again = ask(loud, corrected, **options | {"batch_size": 1})
    assert counted == [2]
    assert list(again) == list(first) and again["completion"].tolist() == list(first["completion"])
    assert [list(said) for said in again["answers"]] == corrected["answers"]  # facts of the rows


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 1.0},
        {"max_new_tokens": 4},
        {"style": "reasoning"},
        {"logprobs": True},
    ],
)
def test_a_finished_file_that_was_decoded_otherwise_is_made_anew(
    loud: Tiny, rows: Dataset, tmp_path: Path, counted: list[int], other: dict[str, Any]
) -> None:
    two, path = rows.select(range(2)), tmp_path / "trained.parquet"
    ask(loud, two, path=path)
    found = ask(loud, two, path=path, **other)
    assert counted == [2, 2] and ("option_logprobs" in found) == ("logprobs" in other)


def test_a_finished_file_of_other_weights_or_prompts_or_torn_is_made_anew(
    loud: Tiny, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Mock(wraps=module._generate)
    monkeypatch.setattr(module, "_generate", asked)
    two, path, other = rows.select(range(2)), tmp_path / "trained.parquet", tiny_model(1)
    for model in (loud, other):
        ask(model, two, path=path, batch_size=1)
    assert asked.call_count == 4
    turned = two.map(lambda row, index: {"question": "What?" * index + row["question"]}, True)
    ask(other, turned, path=path, batch_size=1)
    assert asked.call_count == 5  # the first prompt is the same
    path.write_bytes(b"PAR1 torn")
    ask(other, turned, path=path, batch_size=1)
    assert asked.call_count == 7


def test_parts_of_a_file_whose_name_goes_on_are_left_alone(tmp_path: Path) -> None:
    said = pd.DataFrame({"completion": ["x"], "n_tokens": [1], "prompt_hash": ["0"]})
    other, own = (
        Parts(tmp_path / name, {"logprobs": False}) for name in ("gpt.4o.parquet", "gpt.parquet")
    )
    for parts in (other, own):
        parts.write(0, said)
    own.join([said])
    assert other.read(0, ["0"]) is not None and own.read(1, ["0"]) is None
    assert [found.name.count("4o") for found in tmp_path.glob(".*.parts")] == [1]
