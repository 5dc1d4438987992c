"""The reader of model answers: what counts as an answer, and that nothing makes it raise."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoq_lib.answers import last_boxed, read_answer

OPTIONS = [
    "Normal",
    "Pneumonia",
    "Pneumonia, viral",
    "Head and neck cancer",
    "Fluid & air",
    "Nevus",
]


def fenced(entries: object) -> str:
    return f"```json\n{json.dumps(entries)}\n```\n"


def box(*corners: object, label: str = "x") -> dict[str, object]:
    return {"bbox_2d": list(corners), "label": label}


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{a}", "a"),
        (r"\boxed{a} then \boxed{b}", "b"),
        (r"\boxed{a} then \boxed{b", "a"),
        (r"\boxed{a {b {c}} d}", "a {b {c}} d"),
        (r"}}} \boxed{a}", "a"),
        (r"{ \boxed{a}", "a"),
        (r"\boxed{}", ""),
        (r"\boxed{a}}", "a"),
        ("\\boxed{a\nb}", "a\nb"),
        (r"boxed{a}", None),
        (r"\boxed a", None),
        (r"\boxed{a", None),
        ("", None),
    ],
)
def test_last_balanced_box(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("Normal", ["Normal"]),
        ("  nORMAL \n", ["Normal"]),
        ("Pneumonia", ["Pneumonia"]),
        ("Pneumonia, viral", ["Pneumonia, viral"]),
        ("pneumonia,   VIRAL", ["Pneumonia, viral"]),
        ("Pneumonia, Nevus", ["Pneumonia", "Nevus"]),
        ("Head and neck cancer", ["Head and neck cancer"]),
        ("Nevus and head and neck cancer", ["Nevus", "Head and neck cancer"]),
        ("fluid & air & nevus", ["Fluid & air", "Nevus"]),
        ("Normal, Nevus, and Pneumonia", ["Normal", "Nevus", "Pneumonia"]),
        ("Normal , & Nevus", ["Normal", "Nevus"]),
        ("Normal; Nevus;", ["Normal", "Nevus"]),
        ("Nevus, Nevus", ["Nevus"]),
        ("Head and\nneck cancer", ["Head and neck cancer"]),
    ],
)
def test_labels_read(content: str, labels: list[str]) -> None:
    answer = read_answer(f"So \\boxed{{{content}}}.", OPTIONS)
    assert (list(answer.labels), answer.valid) == (labels, True)


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("", []),
        ("melanoma", []),
        ("Nevus, melanoma", ["Nevus"]),
        ("melanoma, Nevus", ["Nevus"]),
        ("Nevus Pneumonia", []),
        ("Nevusand, Pneumonia", ["Pneumonia"]),
        ("Normality", []),
        (", Nevus", ["Nevus"]),
    ],
)
def test_anything_else_in_the_box_is_invalid(content: str, labels: list[str]) -> None:
    answer = read_answer(f"\\boxed{{{content}}}", OPTIONS)
    assert (list(answer.labels), answer.valid) == (labels, False)


def test_an_answer_outside_the_box_is_none() -> None:
    assert read_answer("Nevus", OPTIONS) == read_answer("", OPTIONS)
    assert not read_answer("The answer is Nevus.", OPTIONS).valid


@given(
    st.lists(st.sampled_from(OPTIONS), unique=True, min_size=1), st.sampled_from([", ", " and "])
)
def test_any_set_of_options_is_read_back(labels: list[str], joint: str) -> None:
    text = f"\\boxed{{{joint.join(labels).upper()}}}"
    assert read_answer(text, OPTIONS).labels == tuple(labels)
    assert read_answer(text, OPTIONS).valid


def test_boxes_of_all_fenced_blocks_in_order() -> None:
    text = (
        "<think>"
        + fenced([box(1, 2, 3, 4), box(5, 6, 7.5, 8)])
        + "and ```[]``` and ```\n"
        + json.dumps([{"bbox_2d": [0, 0, 28, 28]}])
        + "\n``` </think> \\boxed{Nevus}"
    )
    answer = read_answer(text, OPTIONS)
    assert answer.boxes == ((1, 2, 3, 4), (5, 6, 7.5, 8), (0, 0, 28, 28))
    assert answer.valid


@pytest.mark.parametrize(
    "entry",
    [
        box(1, 2, 3),
        box(1, 2, 3, 4, 5),
        box(3, 2, 1, 4),
        box(1, 2, 1, 4),
        box("1", 2, 3, 4),
        box(False, 0, True, 1),
        box(0, 0, 1, float("inf")),
        box(0, 0, 1, float("nan")),
        box(0, 0, 1, 10**400),
        box(None, 0, 1, 1),
        {"bbox_2d": "1, 2, 3, 4"},
        {"label": "x"},
        [1, 2, 3, 4],
        "box",
        None,
    ],
)
def test_a_malformed_region_is_dropped_and_invalid(entry: object) -> None:
    answer = read_answer(fenced([box(1, 2, 3, 4), entry]) + "\\boxed{Nevus}", OPTIONS)
    assert answer.boxes == ((1, 2, 3, 4),)
    assert answer.labels == ("Nevus",)
    assert not answer.valid


@pytest.mark.parametrize(
    "block", ["{", "[1, 2", '{"bbox_2d": [1, 2, 3, 4]}', "", "python", "[" * 100_000, "1" * 5000]
)
def test_malformed_json_is_invalid_and_never_raises(block: str) -> None:
    answer = read_answer(f"```json\n{block}\n```\n\\boxed{{Nevus}}", OPTIONS)
    assert answer.boxes == ()
    assert answer.labels == ("Nevus",)
    assert not answer.valid


PIECES = [
    "\\boxed{",
    "}",
    "{",
    "```json",
    "```",
    '[{"bbox_2d": [',
    "1e999",
    "]",
    ",",
    " and ",
    "Nevus",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=30).map("".join))
def test_no_text_raises(text: str) -> None:
    answer = read_answer(text, OPTIONS)
    assert set(answer.labels) <= set(OPTIONS)
    assert len(set(answer.labels)) == len(answer.labels)
    assert not answer.valid or answer.labels


@given(st.text(), st.lists(st.text(max_size=8), max_size=4))
def test_no_options_raise(text: str, options: list[str]) -> None:
    read_answer(f"\\boxed{{{text}}}", options)


@pytest.mark.parametrize(
    "text",
    ["\\boxed{" * 20_000, "```" + " " * 200_000, "\\boxed{" + "a and " * 5_000 + "}", "}" * 10**5],
)
def test_degenerate_completions_are_read_in_time(text: str) -> None:
    start = time.perf_counter()
    assert not read_answer(text, OPTIONS).valid
    assert time.perf_counter() - start < 2  # quadratic reading would take minutes
