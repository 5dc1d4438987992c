"""The reader of model answers: what counts as an answer, and that nothing makes it raise."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoq_lib.answers import last_boxed, prose, read_answer, reasoning
from qoq_lib.data.sources.kit import KIT
from qoq_lib.data.sources.source import Source

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
        ("Nevus.", ["Nevus"]),
        ("Nevus. ", ["Nevus"]),
        ("Nevus., Pneumonia, viral.", ["Nevus", "Pneumonia, viral"]),
        (r"\text{Nevus}", ["Nevus"]),
        (r"\text{Nevus.}", ["Nevus"]),
        (r"\text{Nevus}.", ["Nevus"]),
        (r"\textbf{Nevus}, \mathrm{Normal}", ["Nevus", "Normal"]),
        (r"\text{\textit{Nevus} and Normal}", ["Nevus", "Normal"]),
        (r"\text{Fluid \& air}", ["Fluid & air"]),
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
        ("Nevus. Normal", []),
        ("Nevus..", []),
        (r"\frac{Nevus}{Normal}", []),
        ("{Nevus}", []),
        (r"\textcolor{red}{Nevus}", []),
    ],
)
def test_anything_else_in_the_box_is_invalid(content: str, labels: list[str]) -> None:
    answer = read_answer(f"\\boxed{{{content}}}", OPTIONS)
    assert (list(answer.labels), answer.valid) == (labels, False)


# The findings of a public chest X-ray table: one holds another behind a comma, one has a full stop.
FINDINGS = ["COVID-19", "COVID-19, ARDS", "ARDS", "E.Coli", "No Finding", "Pneumonia"]


@pytest.mark.parametrize(
    ("content", "options", "labels"),
    [
        ("COVID-19, ARDS", FINDINGS, ["COVID-19, ARDS"]),
        ("ARDS, COVID-19", FINDINGS, ["ARDS", "COVID-19"]),
        ("e.coli.", FINDINGS, ["E.Coli"]),
        ("Pneumonia, COVID-19, ARDS", FINDINGS, ["Pneumonia", "COVID-19, ARDS"]),
        ("a and b and c", ["a", "a and b", "b and c"], ["a", "b and c"]),
        ("a and b and c", ["a", "b", "c", "a and b"], ["a and b", "c"]),
        ("a, b", ["a", "a, b,"], ["a"]),
        ("Grade {II}", ["Grade {II}"], ["Grade {II}"]),
        (r"\text{Grade {II}}", ["Grade {II}"], ["Grade {II}"]),
        ("other spec.", ["other spec.", "other"], ["other spec."]),
    ],
)
def test_labels_that_hold_separators(content: str, options: list[str], labels: list[str]) -> None:
    """As little as possible is left unread; then the fewest labels."""
    assert list(read_answer(f"\\boxed{{{content}}}", options).labels) == labels


@pytest.mark.parametrize("source", KIT, ids=lambda source: source.name)
def test_every_label_set_of_the_kit_is_read_back(source: Source) -> None:
    options = list(source.options)
    for joint in (", ", "; ", " and ", ", and "):
        answer = read_answer(f"\\boxed{{\\text{{{joint.join(options).upper()}}}.}}", options)
        assert (list(answer.labels), answer.valid) == (options, True)


ALIASES = {"mole": "Nevus", "NV": "Nevus", "gas and fluid": "Fluid & air", "mel": "Melanoma"}


@pytest.mark.parametrize(
    ("content", "labels", "valid"),
    [
        ("Mole", ["Nevus"], True),
        ("nv, Nevus", ["Nevus"], True),
        ("gas and fluid and NV", ["Fluid & air", "Nevus"], True),
        ("Pneumonia and mole", ["Pneumonia", "Nevus"], True),
        ("mel", [], False),  # of an option that is not listed
        ("mol", [], False),
    ],
)
def test_aliases(content: str, labels: list[str], valid: bool) -> None:
    answer = read_answer(f"\\boxed{{{content}}}", OPTIONS, ALIASES)
    assert (list(answer.labels), answer.valid) == (labels, valid)


def test_an_option_is_never_taken_for_the_alias_of_another() -> None:
    assert read_answer("\\boxed{Normal}", OPTIONS, {"normal": "Nevus"}).labels == ("Normal",)


def test_prose_is_the_text_without_boxes_and_padding() -> None:
    assert prose(f"a \n b{fenced([box(1, 2, 3, 4)])}c") == "a b c"


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


awkward = st.text("aA \t,;&.{}\\", max_size=6) | st.sampled_from(["and", "a and", "& a", ""])


@given(
    st.lists(awkward | st.text(max_size=8), max_size=8).map(" ".join),
    st.lists(awkward | st.text(max_size=8), max_size=4),
    st.dictionaries(awkward, awkward, max_size=2),
)
def test_no_options_raise(text: str, options: list[str], aliases: dict[str, str]) -> None:
    labels = read_answer(f"\\boxed{{{text}}}", options, aliases).labels
    assert set(labels) <= set(options)


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("<think> round\nand even </think> \\boxed{Nevus}", "round\nand even"),
        ("<think>cut off in the", "cut off in the"),
        ("\\boxed{Nevus}", ""),
        ("no opening </think> \\boxed{Nevus}", ""),
    ],
)
def test_reasoning_is_what_stands_between_the_tags(text: str, thought: str) -> None:
    assert reasoning(text) == thought
