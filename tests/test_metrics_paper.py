"""The paper's own rules: its printed floors, and how it reads an answer."""

from typing import Any

import pandas as pd
import pytest

from qoq_lib.evaluation.metrics import evaluate
from qoq_lib.evaluation.metrics.paper import divided, paper_labels


def constant(sizes: list[int], said: int, dataset: str = "x") -> pd.DataFrame:
    """Classes of these sizes, all answered with the one numbered ``said``; -1 says nothing."""
    names = [f"class {number}" for number in range(len(sizes))]
    answers = [name for name, size in zip(names, sizes, strict=True) for _ in range(size)]
    completion = f"\\boxed{{{names[said]}}}" if said >= 0 else "no answer at all"
    rows = {
        "id": [f"{dataset}/{number}" for number in range(len(answers))],
        "domain": "ct",
        "dataset": dataset,
        "patient_id": [str(number) for number in range(len(answers))],
        "options": [names] * len(answers),
        "answers": [[name] for name in answers],
        "completion": completion,
    }
    return pd.DataFrame(rows)


def scored(predictions: pd.DataFrame) -> dict[str, Any]:
    return evaluate(predictions, paper=True, resamples=0)["overall"]


PRINTED = {  # tables 8 to 14 of the paper: data sets that a constant answer explains
    "INSPECT": ([24, 24, 24, 24, 19], 0, 0.6835, 0.0691),
    "Hemorrhage": ([24, 24], 0, 0.5000, 0.3333),
    "KiTS23, rarer class": ([24, 15], 1, 0.3846, 0.2778),
    "KiTS23, commoner class": ([24, 15], 0, 0.6154, 0.3810),
    "RSPECT": ([24] * 3, 1, 0.5556, 0.1667),
    "Jichi": ([24] * 4, 0, 0.6250, 0.1000),
    "VinDr-Mammo": ([24] * 5, 4, 0.6800, 0.0667),
    "CMMD, rarer class": ([24, 3], 1, 0.1111, 0.1000),
    "CMMD, commoner class": ([24, 3], 0, 0.8889, 0.4706),
    "COVID-19": ([24, 24, 24, 9], 0, 0.6481, 0.1143),
}


@pytest.mark.parametrize("name", PRINTED)
def test_printed_numbers_are_those_of_a_constant_answer(name: str) -> None:
    sizes, said, accuracy, f1 = PRINTED[name]
    found = scored(constant(sizes, said))
    assert (round(found["accuracy"], 4), round(found["f1"], 4)) == (accuracy, f1)


def test_the_mean_of_the_printed_ct_sets_is_the_printed_domain() -> None:
    sets = [PRINTED[name] for name in ("INSPECT", "Hemorrhage", "RSPECT")]
    kits = PRINTED["KiTS23, commoner class"]
    every = [*sets, kits, ([24, 24], 0, 0.5, 0.3333)]  # the last: LNDb
    tables = [constant(one[0], one[1], f"set {number}") for number, one in enumerate(every)]
    found = scored(pd.concat(tables))
    assert (round(found["accuracy"], 3), round(found["f1"], 3)) == (0.571, 0.257)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_its_accuracy_rewards_an_answer_that_is_never_readable(classes: int) -> None:
    found = scored(constant([24] * classes, -1))
    assert found["accuracy"] == pytest.approx(1 - 1 / classes)
    assert found["accuracy"] == pytest.approx(found["accuracy_invalid"])
    assert found["f1"] == 0.0
    guess = scored(constant([24] * classes, 0))
    assert guess["accuracy_constant"] == pytest.approx(guess["accuracy"])
    assert guess["floors"]["constant"] == pytest.approx(guess["f1"])
    assert guess["accuracy_all_options"] == pytest.approx(1 / classes)
    assert guess["recall"] == pytest.approx(1 / classes)
    assert guess["specificity"] == pytest.approx((classes - 1) / classes)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (r"\boxed{Nevus} then \boxed{Melanoma}", ("Nevus",)),  # the first box
        ("[1, 2] and nothing else", ("1", "2")),  # square brackets without one
        ("Nevus", ("Nevus",)),  # and else the whole text
        (r"\boxed{a, b and c}", ("a", "b and c")),  # only one separator
        (r"\boxed{None}", ()),
        (r"\boxed{}", ("",)),
    ],
)
def test_its_reading_of_answers(text: str, labels: tuple[str, ...]) -> None:
    assert paper_labels(text) == labels


def test_it_divides_labels_that_hold_a_separator() -> None:
    assert divided("Head and neck cancer") == ("Head", "neck cancer")


def test_letters_count_as_they_stand() -> None:
    predictions = constant([3, 3], 0).assign(completion=r"\boxed{CLASS 0}")
    assert scored(predictions)["f1"] == 0.0
    assert evaluate(predictions, resamples=0)["overall"]["macro_f1"] > 0.3
