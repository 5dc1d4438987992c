"""Ways in which the released reward and evaluation code misjudge an answer; ours must not."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qoq_lib.answers import read_answer
from qoq_lib.evaluation.metrics import evaluate
from qoq_lib.training.rewards import COMPONENTS, FULL_LENGTH, PRESETS, score, set_f1

OPTIONS = ["Nevus", "Melanoma", "Head and neck cancer", "Fluid & air", "Edema, pulmonary"]
FIRST, SECOND = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]


def row(answers: list[str], **more: Any) -> dict[str, Any]:
    return {"options": OPTIONS, "answers": answers} | more


def say(content: str, boxes: list[list[float]] | None = None, **keys: str) -> str:
    block = json.dumps([{"bbox_2d": corners} | keys for corners in boxes or []])
    return (f"```json\n{block}\n```\n" if boxes else "") + f"\\boxed{{{content}}}"


def mask_of(*boxes: list[float]) -> np.ndarray:
    mask = np.zeros((48, 48), np.uint8)
    for x1, y1, x2, y2 in np.array(boxes, int):
        mask[y1:y2, x1:x2] = 255
    return mask


@pytest.mark.parametrize("true", [[FIRST], np.array([FIRST])])
def test_a_second_box_does_not_void_the_first(true: Any) -> None:
    """The released code raises on the second box, in silence, and then the overlap is 0."""
    example = row(["Nevus"], boxes=true)
    assert score(say("Nevus", [FIRST]), example)["iou"] == 1.0
    assert score(say("Nevus", [FIRST, FIRST]), example)["iou"] == 0.5
    assert score(say("Nevus", [SECOND, FIRST]), example)["iou"] == 0.5


@pytest.mark.parametrize("lesions", [{"boxes": [FIRST, SECOND]}, {"mask": mask_of(FIRST, SECOND)}])
def test_boxing_every_lesion_exactly_earns_the_whole_overlap(lesions: dict[str, Any]) -> None:
    """The released code compares each box with the whole mask: both boxes earn 0.5, as does one."""
    example = row(["Nevus"], **lesions)
    both = score(say("Nevus", [SECOND, FIRST]), example)["iou"]
    one = score(say("Nevus", [SECOND]), example)["iou"]
    around = score(say("Nevus", [[0, 0, 40, 40]]), example)["iou"]
    assert (both, one) == (1.0, 0.5)
    assert around < 0.2


THOUGHT = "<think> The border is irregular. </think>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{THOUGHT} {say('Nevus')}", 1.0),
        (say("Nevus"), 1.0),
        (f"<think> The border is irregular. {say('Nevus')}", 0.0),
        (f"The border is irregular. </think> {say('Nevus')}", 0.0),
        (f"<think> The border, so {say('Nevus')} </think>", 0.0),
        (f"<think> {THOUGHT} {say('Nevus')}", 0.0),
        (f"{THOUGHT} </think> {say('Nevus')}", 0.0),
        (f"{THOUGHT} {THOUGHT} {say('Nevus')}", 0.0),
        (f"</think> <think> {say('Nevus')}", 0.0),
    ],
)
def test_reasoning_must_be_closed_before_the_answer(text: str, expected: float) -> None:
    """The released code never looks at the think tags."""
    assert score(text, row(["Nevus"]))["format"] == expected
    assert score(text, row(["Nevus"]))["accuracy"] == 1.0


def test_length_grows_evenly() -> None:
    """The released code pays .6 for 600 characters and 1.0 for 601."""
    lengths = [score("a" * n, row(["Nevus"]))["length"] for n in range(FULL_LENGTH + 50)]
    assert lengths[0] == 0.0
    assert lengths[-1] == 1.0
    assert np.diff(lengths).min() >= 0
    assert np.diff(lengths).max() == pytest.approx(1 / FULL_LENGTH)


def test_padding_with_white_space_or_boxes_earns_no_length() -> None:
    plain = score(f"A nevus. {say('Nevus')}", row(["Nevus"]), "released")
    for padding in (" \n\t" * 999, f" ```json\n{json.dumps([{'bbox_2d': FIRST}] * 50)}\n``` "):
        padded = score(f"A nevus.{padding}{say('Nevus')}", row(["Nevus"]), "released")
        assert padded["length"] == plain["length"]
        assert padded["reward"] == plain["reward"]


def test_a_region_needs_no_more_than_its_corners() -> None:
    """The released format score wants a key that the released prompt never asks for."""
    example = row(["Nevus"], boxes=[FIRST])
    assert score(say("Nevus", [FIRST]), example)["reward"] == pytest.approx(1.0)
    assert score(say("Nevus", [FIRST], label="mole"), example)["reward"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("content", "answers"),
    [
        ("Head and neck cancer", ["Head and neck cancer"]),
        ("Nevus, Head and neck cancer", ["Nevus", "Head and neck cancer"]),
        ("Nevus, Melanoma and Fluid & air", ["Nevus", "Melanoma", "Fluid & air"]),
        ("Edema, pulmonary & Nevus", ["Edema, pulmonary", "Nevus"]),
        ("nevus, MELANOMA", ["Nevus", "Melanoma"]),
    ],
)
def test_labels_are_matched_whole_and_in_any_case(content: str, answers: list[str]) -> None:
    """The released code splits at the first separator it finds, inside labels too, and by case."""
    assert score(f"\\boxed{{{content}}}", row(answers))["reward"] == pytest.approx(0.8)


def test_braces_inside_a_label_stay() -> None:
    """The released code deletes every closing brace."""
    example = {"options": ["Grade {II}", "Grade {III}"], "answers": ["Grade {II}"]}
    assert score("\\boxed{Grade {II}}", example)["accuracy"] == 1.0
    assert score("\\boxed{Grade {III}}", example)["accuracy"] == 0.0


def test_the_label_none_is_a_label_like_any_other() -> None:
    """The released code takes "None" for a missing answer."""
    example = {"options": ["None", "Nodule"], "answers": ["None"]}
    assert score("\\boxed{None}", example)["reward"] == pytest.approx(0.8)
    for silent in ("", "None", "\\boxed{}"):
        assert score(silent, example)["reward"] == 0.0


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("known", [1, 2, 3])
def test_naming_more_labels_than_apply_never_pays(preset: str, known: int) -> None:
    """Under set F1 alone, as released, listing all options beats a guess by one who knows nothing.

    The mean reward over all sets of ``known`` true labels: what a policy earns that says the same
    number of labels whatever it sees.
    """
    for count in range(known, 15):
        options = [f"label {number}" for number in range(count)]
        answers = [[options[(first + n) % count] for n in range(known)] for first in range(count)]

        def blind(
            named: int, options: list[str] = options, answers: list[list[str]] = answers
        ) -> tuple[float, float]:
            text = f"\\boxed{{{', '.join(options[:named])}}}"
            rows = [{"options": options, "answers": labels} for labels in answers]
            return (
                float(np.mean([score(text, row, preset)["reward"] for row in rows])),
                float(np.mean([set_f1(options[:named], row["answers"]) for row in rows])),
            )

        guess = blind(known)
        for named in range(known + 1, count + 1):
            listing = blind(named)
            assert listing[0] < guess[0]
            assert listing[1] > guess[1]  # the reason for the rule


TEXTS = [
    "First I thought \\boxed{Nevus} but it is \\boxed{Melanoma}",
    "Certainly \\boxed{\\text{Melanoma}}.",
    '```json\n[{"bbox_2d": [1, 2, 3, 4]}]\n``` Melanoma it is',
    "[Melanoma]",
    "Melanoma",
    "\\boxed{Nevus",
    "\\boxed{Grade {II} Melanoma}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_training_and_evaluation_read_the_same_answer(text: str) -> None:
    """The released evaluation takes the first box, else any bracket, else the whole text."""
    example = row(["Melanoma"])
    record = {"id": "1", "domain": "dermoscopy", "dataset": "d", "patient_id": "p"}
    scores = evaluate(pd.DataFrame([record | example | {"completion": text}]))["overall"]
    reward = score(text, example)
    answer = read_answer(text, OPTIONS)
    assert scores["exact_match"] == (reward["accuracy"] == 1.0) == (answer.labels == ("Melanoma",))
    assert scores["invalid_rate"] == (not answer.valid) == (reward["format"] == 0.0)
    assert (answer.labels == ("Melanoma",)) == (text in TEXTS[:2])


def test_every_component_is_weighted() -> None:
    for weights in PRESETS.values():
        assert set(vars(weights)) == set(COMPONENTS)
