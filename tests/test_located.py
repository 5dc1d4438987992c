"""Answers with a box: how they are written and read, taught, and rewarded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from qoq_lib.answers import read_answer
from qoq_lib.boxes import box_iou
from qoq_lib.data.phantom import make_phantom
from qoq_lib.data.prompts import COORDINATE_STEP, answer_text
from qoq_lib.evaluation.study.constant_box import constant_box_iou
from qoq_lib.model.loading import AlignmentPlan, LoadError, load_size, tiny_model
from qoq_lib.model.overrides import override
from qoq_lib.model.pixels import model_view
from qoq_lib.publishing.trace_source import style_asked
from qoq_lib.training.align import AlignmentMix, AnswerCollator, align, largest_box
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.launch import start
from qoq_lib.training.methods import load_method
from qoq_lib.training.rewards import score
from qoq_lib.training.rollouts import read_rollouts

BOX = (7, 14, 35, 56)


@pytest.fixture(scope="module")
def located() -> Any:
    """A model and its processor whose answers draw boxes."""
    return tiny_model(0, style="located")


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Training questions, with and without lesions."""
    return make_phantom(200, seed=1).filter(lambda s: s == "train", input_columns="split")


@pytest.fixture(scope="module")
def views(located: Any, rows: Dataset) -> list[dict[str, Any]]:
    """The same as the model sees them."""
    return [model_view(row, located[1].image_processor) for row in rows]


def test_an_answer_with_a_box_is_read_as_it_was_written(located: Any) -> None:
    text = answer_text(["glioma"], BOX, "located")
    answer = read_answer(text, ["glioma", "meningioma"])
    assert (answer.labels, answer.boxes, answer.valid) == (("glioma",), (BOX,), True)
    tokenizer = located[1].tokenizer
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(ids) == 6
    row = {"options": ["glioma", "meningioma"], "answers": ["glioma"], "boxes": [list(BOX)]}
    assert score(text, row)["reward"] == pytest.approx(1.0)


def test_only_the_style_with_boxes_writes_one() -> None:
    assert answer_text(["a"], BOX, "brief") == answer_text(["a"], None, "located") == "\\boxed{a}"


def test_the_tokens_of_boxes_come_behind_those_of_every_style(located: Any) -> None:
    brief, more = tiny_model(0)[1].tokenizer.get_vocab(), located[1].tokenizer.get_vocab()
    assert brief.items() < more.items()
    assert min(more[name] for name in set(more) - set(brief)) == len(brief)


def test_alignment_teaches_boxes_that_say_nothing_of_the_lesions(
    views: list[dict[str, Any]],
) -> None:
    mix = AlignmentMix(views, views, 600, 0)
    examples = [mix[index] for index in range(600)]
    assert all((one["box"] is None) == (not one["row"]["images"]) for one in examples)
    boxes = np.array([one["box"] for one in examples if one["box"]])
    assert (boxes % COORDINATE_STEP == 0).all() and (boxes >= 0).all() and (boxes <= 56).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    drawn = [one for one in examples if one["row"]["boxes"]]
    overlaps = [
        box_iou(np.array([one["box"]], float), np.array(one["row"]["boxes"])).max() for one in drawn
    ]
    assert 0.005 < np.mean(overlaps) < 0.06
    foreign = [
        box_iou(np.array([one["box"]], float), np.array(other["row"]["boxes"])).max()
        for one, other in zip(drawn, drawn[::-1], strict=True)
    ]
    assert np.mean(foreign) == pytest.approx(np.mean(overlaps), abs=0.015)


def test_the_taught_answer_holds_the_box_and_nothing_else(
    located: Any, views: list[dict[str, Any]]
) -> None:
    example = {"row": views[0], "answers": ["glioma"], "box": BOX}
    labels = AnswerCollator(located[1], "located")([example])["labels"][0]
    taught = located[1].tokenizer.decode(labels[labels >= 0])
    assert taught == answer_text(["glioma"], BOX, "located") + "<|im_end|>"


def test_supervised_answers_box_the_largest_lesion() -> None:
    row = {"boxes": [[1.0, 1.0, 3.0, 3.0], [9.0, 10.0, 31.0, 41.0]]}
    assert largest_box(row) == [7, 7, 28, 42]
    assert largest_box({"boxes": [[4.6, 0.0, 5.4, 8.0]]}) == [0, 0, 7, 7]
    assert largest_box({"boxes": None}) is None


def test_one_box_for_all_patients_is_right_for_the_patient_it_is_of(rows: Dataset) -> None:
    lone = rows.filter(lambda boxes: len(boxes or []) == 1, input_columns="boxes")
    one, other = lone.select([0]), lone.select([1])
    domain = one[0]["domain"]
    assert constant_box_iou(one, one) == {domain: pytest.approx(1.0)}
    assert constant_box_iou(one, other).get(domain, 0.0) < 0.9
    healthy = rows.filter(lambda boxes: not boxes, input_columns="boxes")
    assert constant_box_iou(lone, healthy) == {}


def test_a_style_takes_the_place_of_the_sizes() -> None:
    assert load_size("tiny").answer_style == "brief"
    with pytest.raises(LoadError, match="answer_style is 'rhymed'"):
        override(load_size("tiny"), "answer_style=rhymed")
    assert style_asked({"model_size": "tiny"}) == style_asked({}) == "brief"
    assert style_asked({"model_size": "tiny", "overrides": "answer_style=located"}) == "located"


def test_an_aligned_model_draws_boxes_and_training_rewards_them(
    located: Any, rows: Dataset, tmp_path: Path
) -> None:
    rows = rows.filter(lambda boxes: bool(boxes), input_columns="boxes").select(range(8))
    model, processor = located
    plan = AlignmentPlan(
        naming_steps=0, naming_batch=1, answering_steps=90, answering_batch=8, learning_rate=3e-3
    )
    align(model, processor, rows, rows, plan, style="located", seed=0, out=tmp_path / "align")
    save_checkpoint(model, processor, tmp_path / "aligned")
    size = override(load_size("tiny"), "answer_style=located")
    budget = {"steps": 2, "questions_per_step": 4, "rollouts": 8, "micro_batch": 32}
    size.training = size.training.model_copy(update=budget)
    job = TrainingJob(start=tmp_path / "aligned", size=size, method=load_method("drpo"))
    (tmp_path / "run").mkdir()
    start(job, rows, tmp_path / "run")
    rollouts = read_rollouts(tmp_path / "run" / "rollouts")
    assert rollouts["boxes"].str.len().gt(0).mean() > 0.25
    assert rollouts["reward_iou"].gt(0).any()
