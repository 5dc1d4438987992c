"""Rewards: hand cases, no gain from listing or spraying, and the rollouts kept on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from qoq_lib.boxes import box_iou
from qoq_lib.data.readers import boxes_of
from qoq_lib.runs import RunError
from qoq_lib.training.rewards import (
    PRESETS,
    RewardError,
    attainable,
    lesion_overlap,
    matched_iou,
    reward_functions,
    score,
    set_f1,
)
from qoq_lib.training.rollouts import SCHEMA, TEXTS, RolloutWriter, read_rollouts

OPTIONS = ["a", "b", "c", "d", "e"]
LESION, OTHER = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]


def row(answers: list[str], boxes: Any = None) -> dict[str, Any]:
    return {"options": OPTIONS, "answers": answers, "boxes": boxes}


def say(labels: list[str], boxes: list[list[float]] | None = None) -> str:
    regions = [{"bbox_2d": corners, "label": "x"} for corners in boxes or []]
    block = f"```json\n{json.dumps(regions)}\n```\n" if boxes is not None else ""
    return f"{block}\\boxed{{{', '.join(labels)}}}"


@pytest.mark.parametrize(
    ("predicted", "true", "f1"),
    [
        (["a"], ["a"], 1.0),
        (["a", "b"], ["b", "a"], 1.0),
        (["a"], ["b"], 0.0),
        (["a", "b"], ["a"], 2 / 3),
        (["a"], ["a", "b"], 2 / 3),
        (OPTIONS, ["a"], 1 / 3),
        (["a", "a"], ["a"], 1.0),
        ([], ["a"], 0.0),
        ([], [], 0.0),
    ],
)
def test_set_f1(predicted: list[str], true: list[str], f1: float) -> None:
    assert set_f1(predicted, true) == pytest.approx(f1)


def test_box_iou_by_hand() -> None:
    found = box_iou(
        np.array([[0, 0, 2, 2.0]]), np.array([[1, 1, 3, 3.0], [0, 0, 2, 2], [5, 5, 6, 6]])
    )
    assert found.tolist() == [[pytest.approx(1 / 7), 1.0, 0.0]]


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([LESION], [LESION], 1.0),
        ([LESION, OTHER], [OTHER, LESION], 1.0),
        ([LESION], [LESION, OTHER], 0.5),
        ([LESION, LESION], [LESION], 0.5),
        ([LESION, LESION], [LESION, OTHER], 0.5),
        ([], [LESION], 0.0),
        ([LESION], [], 0.0),
        ([], [], 0.0),
    ],
)
def test_matched_iou(predicted: list, true: list, expected: float) -> None:
    overlap = lesion_overlap(predicted, row(["a"], true))
    assert overlap.shape == (len(predicted), len(true))
    assert matched_iou(overlap) == pytest.approx(expected)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_listing_every_option_loses_to_the_right_answer(preset: str) -> None:
    right, listing = (score(say(labels), row(["a"]), preset) for labels in (["a"], OPTIONS))
    assert listing["accuracy"] == pytest.approx(1 / 3)
    assert listing["reward"] < right["reward"]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_spraying_boxes_loses(preset: str) -> None:
    tiles = [[x, y, x + 5.0, y + 5.0] for x in range(0, 40, 5) for y in range(0, 40, 5)]
    sprayed = score(say(["a"], [LESION, *tiles]), row(["a"], [LESION]), preset)
    one = score(say(["a"], [LESION]), row(["a"], [LESION]), preset)
    twice = score(say(["a"], [LESION, LESION]), row(["a"], [LESION]), preset)
    assert sprayed["iou"] < 0.02
    assert twice["iou"] == 0.5
    assert one["iou"] == 1.0
    assert sprayed["reward"] < twice["reward"] < one["reward"]


def test_a_perfect_answer_under_the_paper_is_worth_one() -> None:
    perfect = score(say(["a", "b"], [OTHER, LESION]), row(["b", "a"], [LESION, OTHER]))
    assert perfect["reward"] == pytest.approx(1.0)
    assert perfect["iou"] == perfect["accuracy"] == perfect["format"] == 1.0


@pytest.mark.parametrize("boxes", [None, [], np.empty((0, 4))])
def test_a_row_without_lesions_cannot_earn_the_overlap(boxes: Any) -> None:
    assert score(say(["a"], [LESION]), row(["a"], boxes))["iou"] == 0.0
    assert score(say(["a"]), row(["a"], boxes))["reward"] == pytest.approx(0.8)
    assert attainable(row(["a"], boxes), "paper") == pytest.approx(0.8)
    assert attainable(row(["a"], boxes), "released") == pytest.approx(0.7)
    assert score(say(["a"]), {"options": OPTIONS, "answers": ["a"]})["iou"] == 0.0


def test_rows_read_back_from_parquet(tmp_path: Path) -> None:
    pd.DataFrame([row(["a"], [LESION, OTHER])]).to_parquet(tmp_path / "rows.parquet")
    stored = pd.read_parquet(tmp_path / "rows.parquet").iloc[0].to_dict()
    assert score(say(["a"], [LESION, OTHER]), stored)["iou"] == 1.0


def test_format_wants_a_region_per_label_or_lesion_where_it_lists_any() -> None:
    assert score(say(["a", "b"], [LESION]), row(["a", "b"]))["format"] == 0.0
    assert score(say(["a", "b"]), row(["a", "b"]))["format"] == 1.0
    assert score(say(["a", "b"], [LESION]), row(["a", "b"], [LESION]))["format"] == 1.0
    assert score(say(["a", "b"], [LESION]), row(["a", "b"], [LESION, OTHER]))["format"] == 0.0
    assert score("a", row(["a"]))["format"] == 0.0
    assert score("```json\n[{}]\n```\\boxed{a}", row(["a"]))["format"] == 0.0


# An L of 3 pixels in the top left corner, and a lesion of 2 x 2 pixels apart from it.
MASK = np.zeros((8, 10), dtype=np.uint8)
MASK[[0, 1, 1], [0, 0, 1]] = 255
MASK[4:6, 6:8] = 255
L_BOX, SQUARE_BOX = [0.0, 0.0, 2.0, 2.0], [6.0, 4.0, 8.0, 6.0]


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([SQUARE_BOX], [[0, 1]]),
        ([L_BOX], [[3 / 4, 0]]),
        ([[0, 0, 1, 2]], [[2 / 3, 0]]),
        ([[0.5, 0, 1.5, 2]], [[1.5 / (2 + 3 - 1.5), 0]]),  # halves of pixels count as halves
        ([[-2, -2, 2, 2]], [[3 / 16, 0]]),  # outside the image is outside the lesion
        ([[0, 0, 10, 8]], [[3 / 80, 4 / 80]]),
        ([], np.empty((0, 2))),
    ],
)
@pytest.mark.parametrize("as_mask", [np.asarray, Image.fromarray])
def test_boxes_against_the_lesions_of_a_mask(predicted: Any, expected: Any, as_mask: Any) -> None:
    overlap = lesion_overlap(predicted, row(["a"]) | {"mask": as_mask(MASK)})
    assert overlap == pytest.approx(np.array(expected, float))


def test_pixels_that_touch_at_a_corner_are_one_lesion() -> None:
    mask = np.eye(3, dtype=np.uint8)
    overlap = lesion_overlap([[0, 0, 3, 3]], row(["a"]) | {"mask": mask})
    assert overlap.tolist() == [[pytest.approx(1 / 3)]]


def test_specks_of_a_mask_are_no_lesions_and_a_second_lesion_is_one() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[10:40, 10:40] = mask[45:48, 50:53] = 255  # 900 pixels, and 1 % of them
    tight = [[10, 10, 40, 40], [50, 45, 53, 48]]
    example = row(["a"]) | {"mask": mask}
    assert boxes_of(Image.fromarray(mask)) == tight
    mask[2, 2] = mask[55, 5:9] = mask[50:52, 40:44] = 1
    assert boxes_of(Image.fromarray(mask)) == tight
    assert matched_iou(lesion_overlap(tight, example)) == attainable(example, "boxes") == 1.0
    assert matched_iou(lesion_overlap(tight[:1], example)) == 0.5


def test_a_row_with_only_a_mask_earns_what_boxes_can_fill() -> None:
    example = row(["a"]) | {"mask": MASK}
    perfect = score(say(["a"], [SQUARE_BOX, L_BOX]), example)
    assert perfect["iou"] == pytest.approx((1 + 3 / 4) / 2)
    assert attainable(example) == pytest.approx(perfect["reward"])


def test_the_boxes_of_a_row_come_before_its_mask() -> None:
    example = row(["a"], [L_BOX]) | {"mask": MASK}
    assert score(say(["a"], [L_BOX]), example)["iou"] == 1.0
    assert attainable(example) == pytest.approx(1.0)


@pytest.mark.parametrize("mask", [None, np.zeros((4, 4), np.uint8)])
def test_an_empty_mask_has_no_lesions(mask: Any) -> None:
    assert score(say(["a"], [LESION]), row(["a"]) | {"mask": mask})["iou"] == 0.0


def test_a_mask_in_colour_is_refused() -> None:
    with pytest.raises(RewardError, match=r"height x width, got the shape \(4, 4, 3\)"):
        score(say(["a"]), row(["a"]) | {"mask": np.zeros((4, 4, 3))})


def test_an_unknown_preset_is_refused() -> None:
    for call in (lambda: score("", row(["a"]), "papers"), lambda: reward_functions("papers")):
        with pytest.raises(RewardError, match="'papers': use one of paper, released, boxes"):
            call()


def test_aliases_travel_with_the_row() -> None:
    example = row(["b"]) | {"aliases": {"Beta": "b", "Zeta": "z", "Gamma": None}}
    assert score(say(["beta"]), example)["reward"] == pytest.approx(0.8)
    assert score(say(["beta"]), row(["b"]))["reward"] == 0.0
    functions, _ = reward_functions("paper")
    columns = {name: [value] for name, value in example.items()}
    chat = [[{"role": "assistant", "content": say(["beta"])}]]
    assert [f(completions=chat, **columns)[0] for f in functions] == [1.0, 0.0, 1.0]


def test_presets_sum_to_one() -> None:
    for weights in PRESETS.values():
        assert sum(vars(weights).values()) == pytest.approx(1.0)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_reward_functions_for_the_trainer_agree_with_score(preset: str) -> None:
    functions, weights = reward_functions(preset)
    completion, example = say(["a"], [LESION]), row(["a"], [LESION])
    chat = [[{"role": "assistant", "content": completion}]]
    columns = {name: [value] for name, value in example.items()}
    parts = {f.__name__: f(completions=chat, id=["x"], **columns)[0] for f in functions}
    expected = score(completion, example, preset)
    assert {name: expected[name] for name in parts} == parts
    total = sum(weight * value for weight, value in zip(weights, parts.values(), strict=True))
    assert total == pytest.approx(expected["reward"])


def rollout(step: int, **more: Any) -> dict[str, Any]:
    text = f"<think>seen</think>\\boxed{{{OPTIONS[0]}}}"
    row = {"id": "set/q", "dataset": "set", "options": OPTIONS, "completion": text}
    return row | {"sample": 0, "reward": 0.5} | more


def test_rollouts_are_read_in_order_of_step_and_replaced(tmp_path: Path) -> None:
    writer = RolloutWriter(tmp_path / "rollouts")
    for step in (10, 2, 100):
        writer.write(step, [rollout(step), rollout(step, sample=1)])
    writer.write(2, [rollout(2, reward=0.75)])
    (tmp_path / "rollouts" / "step-00000011.part").write_bytes(b"half a file")
    table = read_rollouts(tmp_path / "rollouts")
    assert list(table.columns) == SCHEMA.names
    assert table["step"].tolist() == [2, 10, 10, 100, 100]
    assert table["reward"][0] == 0.75
    assert table["options"][0].tolist() == OPTIONS
    assert table["reward_length"].isna().all()
    scores = read_rollouts(tmp_path / "rollouts", texts=False)
    pd.testing.assert_frame_equal(scores, table.drop(columns=list(TEXTS)))


def test_a_rollout_tells_run_source_reasoning_and_answer(tmp_path: Path) -> None:
    RolloutWriter(tmp_path, {"run_id": "r", "seed": 3}).write(1, [rollout(1, reward_extra=0.25)])
    row = read_rollouts(tmp_path).iloc[0]
    assert (row["run_id"], row["seed"], row["source_record"]) == ("r", 3, "q")
    assert (row["reasoning"], list(row["final_answer"])) == ("seen", [OPTIONS[0]])
    assert row["reward_extra"] == 0.25 and len(row["boxes"]) == 0


def test_a_resumed_run_drops_later_steps(tmp_path: Path) -> None:
    writer = RolloutWriter(tmp_path)
    for step in range(1, 13):
        writer.write(step, [rollout(step)])
    writer.drop_after(9)
    assert read_rollouts(tmp_path)["step"].tolist() == list(range(1, 10))


def test_no_rollouts_and_a_damaged_file_are_one_clear_sentence_each(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run notebook 03"):
        read_rollouts(tmp_path)
    (tmp_path / "step-00000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match="Cannot read .*step-00000001.parquet .*train this run"):
        read_rollouts(tmp_path)


@pytest.mark.parametrize("tail", ["", ".", " \n", "$", ".\n"])
def test_what_closes_a_sentence_may_follow_the_box(tail: str) -> None:
    row = {"options": ["a", "b"], "answers": ["a"]}
    assert score("\\boxed{a}" + tail, row)["format"] == 1.0


@pytest.mark.parametrize("tail", [" and so on", "x", " \\boxed{", "\ufffd"])
def test_text_behind_the_final_box_costs_the_format(tail: str) -> None:
    row = {"options": ["a", "b"], "answers": ["a"]}
    parts = score("\\boxed{a}" + tail, row)
    assert parts["format"] == 0.0 and parts["accuracy"] == 1.0
