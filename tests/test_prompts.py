"""What the model is asked: a template per task, the options, and who the patient is."""

from pathlib import Path
from typing import Any, get_args

import pytest
from miniatures import table_tree

from qoq_lib.data.listing import Listed
from qoq_lib.data.making import made_phantom, made_row
from qoq_lib.data.phantom.rows import phantom_cases
from qoq_lib.data.prompts import (
    TASKS,
    AnswerStyle,
    Task,
    task_question,
    to_messages,
    with_patient,
)
from qoq_lib.data.shards import Made
from qoq_lib.data.sources.own import own_source
from qoq_lib.data.sources.source import Record
from qoq_lib.domains import DOMAIN_NAMES


def asked(style: AnswerStyle, **more: Any) -> str:
    """The text of the user's turn."""
    row = {"question": "CT: which?", "report": None, "images": None, "ecg": None, **more}
    return to_messages(row, style)[-1]["content"][-1]["text"]


@pytest.mark.parametrize("task", get_args(Task))
def test_every_task_has_a_question_that_lists_its_options(task: Task) -> None:
    assert task in TASKS
    for domain in DOMAIN_NAMES:
        question = task_question(task, domain, ["b, severe", "a"])
        assert question.endswith("\nOptions: b, severe; a")


def test_thinking_is_asked_for_or_not() -> None:
    assert asked("brief") == "CT: which?\nAnswer in \\boxed{}."
    reasoning = asked("reasoning")
    assert reasoning.startswith("CT: which?\nFirst think it through between <think> and </think>.")
    assert "bbox_2d" in reasoning and "\\boxed{label}" in reasoning


@pytest.mark.parametrize(
    ("sex", "age", "told"),
    [
        ("F", 63.9, "Patient: female, 63 years.\n"),
        ("M", None, "Patient: male.\n"),
        (None, 0.5, "Patient: 0 years.\n"),
        (None, None, ""),
    ],
)
def test_sex_and_age_are_told_as_far_as_they_are_known(
    sex: str | None, age: float | None, told: str
) -> None:
    row = {"question": "CT: which?", "sex": sex, "age_years": age}
    assert with_patient(row) == row | {"question": f"{told}CT: which?"}


def test_rows_tell_the_patient_only_when_asked_to(tmp_path: Path) -> None:
    lines = ["1.png,a,F,63", "2.png,b,,"]
    source = own_source(table_tree(tmp_path, lines, "file,label,sex,age"), "ct", "labels.csv")
    records = (one for one in source.records(tmp_path) if isinstance(one, Record))
    listed = [Listed(source, record, hashes=(), masks=()) for record in records]
    usual, told = (questions(listed, demographics=choice) for choice in (False, True))
    assert told == [f"Patient: female, 63 years.\n{usual[0]}", usual[1]]
    assert not any("Patient" in question for question in usual)
    case = phantom_cases(180, seed=0, difficulty=0.0)[0]
    plain, with_line = (
        made_phantom(case, "train", seed=0, difficulty=0.0, demographics=choice).row["question"]
        for choice in (False, True)
    )
    assert with_line.startswith("Patient: ") and with_line.endswith(f"\n{plain}")


def questions(listed: list[Listed], demographics: bool) -> list[str]:
    made = [made_row(o, "train", seed=0, embed=True, demographics=demographics) for o in listed]
    return [one.row["question"] for one in made if isinstance(one, Made)]
