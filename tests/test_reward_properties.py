"""Properties of the reward that must hold whatever a policy writes."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoq_lib.training.rewards import PRESETS, attainable, score

OPTIONS = [
    "COVID-19",
    "COVID-19, ARDS",
    "ARDS",
    "E.Coli",
    "No Finding",
    "Head and neck",
    "Fluid & air",
]
LESION, OTHER = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]
MASK = np.zeros((48, 48), np.uint8)
MASK[:10, :10] = MASK[20:40, 20:40] = 255
MASK[30:, 30:] = 0

presets = st.sampled_from(sorted(PRESETS))
label_lists = st.lists(st.sampled_from(OPTIONS), unique=True)
answers = label_lists.filter(bool)
corners = st.lists(st.floats(-5, 50) | st.floats() | st.integers(), min_size=3, max_size=5)
good_boxes = st.lists(
    st.tuples(*[st.integers(0, 24)] * 2, *[st.integers(25, 48)] * 2).map(list), max_size=5
)
rows = st.builds(
    lambda answers, lesions: {"options": OPTIONS, "answers": answers} | lesions,
    answers,
    st.sampled_from(
        [{}, {"boxes": [LESION]}, {"boxes": [OTHER, LESION]}, {"mask": MASK}, {"boxes": []}]
    ),
)


def say(labels: list[str], boxes: list[Any], joint: str = "; ", prose: str = "") -> str:
    block = json.dumps([{"bbox_2d": box} for box in boxes])
    return f"{prose}\n```json\n{block}\n```\n\\boxed{{{joint.join(labels)}}}"


def tight_boxes(row: dict[str, Any]) -> list[Any]:
    return [LESION, OTHER] if "mask" in row else list(row.get("boxes", []))


pieces = [
    *("\\boxed{", "{", "}", "\\text{", "\\", "```", "```json", "<think>", "</think>", "\n", "."),
    *('[{"bbox_2d": [', '{"bbox_2d": 1}', "]}]", "1e999", "9" * 5000, "NaN", "null", '"\\ud800"'),
    *(", ", " and ", "&", *OPTIONS),
]
texts = st.one_of(
    st.text(st.characters()),  # also lone surrogates
    st.lists(st.sampled_from(pieces) | st.text(max_size=5), max_size=30).map("".join),
    st.builds(say, label_lists, st.lists(corners) | good_boxes),
)


@given(texts, rows, presets)
def test_any_text_is_scored_between_zero_and_what_is_attainable(
    text: str, row: dict[str, Any], preset: str
) -> None:
    parts = score(text, row, preset)
    assert all(0.0 <= value <= 1.0 for value in parts.values())
    if "mask" not in row:  # a box a little inside a ragged lesion may beat its tight box
        assert parts["reward"] <= attainable(row, preset) + 1e-12


@given(rows, presets, st.randoms())
def test_the_perfect_answer_earns_what_is_attainable(
    row: dict[str, Any], preset: str, random: Any
) -> None:
    boxes = tight_boxes(row)
    labels = random.sample(row["answers"], len(row["answers"]))
    text = say(labels, random.sample(boxes, len(boxes)), prose="The reasons are these. " * 30)
    assert score(text, row, preset)["reward"] == pytest.approx(attainable(row, preset))


@given(texts, rows, presets, st.permutations(OPTIONS))
def test_the_order_of_the_options_does_not_matter(
    text: str, row: dict[str, Any], preset: str, options: list[str]
) -> None:
    assert score(text, row | {"options": options}, preset) == score(text, row, preset)


@given(label_lists, good_boxes, rows, presets, st.sampled_from([str.upper, str.lower, str.title]))
def test_the_case_of_the_labels_does_not_matter(
    labels: list[str], boxes: list[Any], row: dict[str, Any], preset: str, change: Any
) -> None:
    text = say([change(label) for label in labels], boxes)
    assert score(text, row, preset) == score(say(labels, boxes), row, preset)


@given(label_lists, good_boxes, rows, presets, st.sampled_from(["  ", "\n", "\t \n", "\u00a0"]))
def test_white_space_does_not_matter(
    labels: list[str], boxes: list[Any], row: dict[str, Any], preset: str, space: str
) -> None:
    text = say(labels, boxes, prose="It is so")
    spaced = say([label.replace(" ", space) for label in labels], boxes, "; ", f"It{space}is  so\n")
    assert score(spaced, row, preset) == score(text, row, preset)


@given(good_boxes.filter(bool), rows, st.randoms())
def test_the_order_of_the_boxes_does_not_matter(
    boxes: list[Any], row: dict[str, Any], random: Any
) -> None:
    moved = random.sample(boxes, len(boxes))
    assert score(say(["ARDS"], moved), row)["iou"] == pytest.approx(
        score(say(["ARDS"], boxes), row)["iou"]
    )


@given(rows.filter(lambda row: row.get("boxes") or "mask" in row), presets, good_boxes)
def test_boxes_beyond_the_lesions_lose_reward(
    row: dict[str, Any], preset: str, more: list[Any]
) -> None:
    tight, labels = tight_boxes(row), row["answers"]
    before = score(say(labels, tight), row, preset)
    after = score(say(labels, [*tight, *more]), row, preset)
    if more:
        assert after["iou"] < before["iou"]
        assert after["reward"] < before["reward"]


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000 + "}" * 100_000,
        "\\boxed{" * 100_000 + "}" * 100_000,
        "\\boxed{" + "\\text{" * 50_000 + "}" * 50_001,
        "\\boxed{" + "a and " * 20_000 + "}",
        "\\boxed{" + "COVID-19, " * 20_000 + "}",
        "\\boxed{" + " " * 200_000 + "}",
        "```" * 50_001,
        "```json\n" + "[" * 200_000,
        "<think>" * 50_000,
        say(["ARDS"], [[n, n, n + 1, n + 1] for n in range(5000)]),
    ],
)
def test_degenerate_text_is_scored(text: str) -> None:
    """Each takes well under a second; read in quadratic time it would take minutes."""
    for lesions in ({"boxes": [LESION, OTHER]}, {"mask": MASK}):
        row = {"options": OPTIONS, "answers": ["ARDS"]} | lesions
        assert score(text, row)["iou"] < 0.01
