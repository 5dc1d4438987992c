"""The parameters cell is the rule: names, types and allowed values, one sentence per failure."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill import cli

from qoq_lib.runs import ParameterError, declared_parameters, read_parameters, start_run
from qoq_lib.runs.parameters import read_notebook_parameters

CELL = """\
run_id: str = ""  # name of the run folder; empty: the model size
model_size: str = "tiny"  # tiny | 3b | 7b | 32b; the model to train
seed: int = 0  # >= 0
steps: int | None = None  # > 0, optimiser steps; None: from configs/model
learning_rate: float = 1e-6  # > 0
use_peft: bool = True
source: str = "phantom"  # phantom | kit
domains: list[str] = []  # any of the nine; empty: all
rollouts: int = 8  # 4 | 8 | 16
limit: int | None = None  # None | 10 | 100
data_root: str | None = None  # a folder | its table
"""


def read(**given_values: Any) -> Any:
    return read_parameters(CELL, given_values)


def test_defaults_come_from_the_cell_in_its_order() -> None:
    parameters = read()
    assert list(vars(parameters)) == list(declared_parameters(CELL))
    assert parameters.model_size == "tiny"
    assert parameters.steps is None
    assert parameters.domains == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("use_peft", "true", True),
        ("use_peft", "False", False),
        ("use_peft", 0, False),
        ("learning_rate", "1e-6", 1e-6),
        ("learning_rate", 1, 1.0),
        ("seed", "7", 7),
        ("seed", 3.0, 3),
        ("steps", "20", 20),
        ("steps", None, None),
        ("run_id", 7, "7"),  # papermill turns -p run_id 7 into a number
        ("rollouts", "16", 16),
        ("limit", 10, 10),
        ("limit", None, None),
        ("domains", ["ecg"], ["ecg"]),
        ("data_root", "data", "data"),
    ],
)
def test_values_are_converted_by_annotation(name: str, value: Any, expected: Any) -> None:
    result = getattr(read(**{name: value}), name)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", "abc", "'seed' must be of type 'int', got 'abc'"),
        ("seed", 3.5, "got 3.5"),
        ("seed", True, "must be of type 'int', got True"),
        ("seed", None, "must be of type 'int', got None"),
        ("seed", -1, "'seed' must be >= 0, got -1"),
        ("steps", 0, "'steps' must be > 0, got 0"),
        ("use_peft", "maybe", "must be of type 'bool'"),
        ("learning_rate", float("nan"), "must be of type 'float'"),
        ("learning_rate", "fast", "must be of type 'float'"),
        ("run_id", True, "must be of type 'str'"),
        ("domains", '["ecg"]', "must be of type 'list[str]'"),
        ("model_size", "8b", "must be one of tiny, 3b, 7b, 32b, got '8b'"),
        ("model_size", "tinny", "did you mean 'tiny'?"),
        ("rollouts", 5, "must be one of 4, 8, 16, got 5"),
        ("limit", 11, "must be one of None, 10, 100, got 11"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(name: str, value: Any, words: str) -> None:
    with pytest.raises(ParameterError) as failure:
        read(**{name: value})
    assert words in str(failure.value)
    assert "\n" not in str(failure.value)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ParameterError, match="'lerning_rate': did you mean 'learning_rate'"):
        read(lerning_rate=1e-5)
    with pytest.raises(ParameterError, match="'zzz': This notebook takes run_id, model_size"):
        read(zzz=1)


def test_a_default_edited_in_the_cell_is_held_to_the_same_rules() -> None:
    with pytest.raises(ParameterError, match="must be one of"):
        read_parameters(CELL.replace('"tiny"', '"huge"'), {})


@pytest.mark.parametrize("line", ["seed = 0", "import os", "seed: int = 1 + x", "seed: Path = 0"])
def test_a_cell_with_anything_but_typed_literals_is_refused(line: str) -> None:
    with pytest.raises(ParameterError, match="Line 1 of the parameters cell"):
        declared_parameters(line)


def notebook(*cells: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"In": ["", *cells, "run = start_run(...)"]}
    for cell in cells:
        exec(cell, namespace)  # the test's own constant cells, run as a kernel would
    return namespace


def test_papermill_values_are_found_in_the_history() -> None:
    parameters = read_notebook_parameters(notebook(CELL, '# Parameters\nuse_peft = "false"\n'))
    assert parameters.use_peft is False


def test_an_unknown_papermill_value_is_refused() -> None:
    with pytest.raises(ParameterError, match="did you mean 'model_size'"):
        read_notebook_parameters(notebook(CELL, '# Parameters\nmodel_sise = "7b"\n'))


def test_the_last_edit_in_jupyterlab_counts() -> None:
    edited = CELL.replace('"tiny"', '"3b"')
    assert read_notebook_parameters(notebook(CELL, edited)).model_size == "3b"
    other_cell = notebook(CELL, 'scratch: int = 1\nmodel_size = "7b"')
    assert read_notebook_parameters(other_cell).model_size == "7b"


def test_the_command_to_go_on_gives_papermill_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QOQ_RUNS", str(tmp_path))
    given_cell = '# Parameters\nmodel_size = "3b"\nuse_peft = False\ndomains = ["ct", "chest x"]\n'
    run = start_run("03_test", notebook(CELL, given_cell))
    words = shlex.split(run.command())
    run.finish({})
    read: list[dict[str, Any]] = []
    monkeypatch.setattr(cli, "execute_notebook", lambda **call: read.append(call["parameters"]))
    CliRunner().invoke(cli.papermill, words[1:], catch_exceptions=False)
    assert words[:3] == ["papermill", "notebooks/03_test.ipynb", "out.ipynb"]
    changed = {"model_size": "3b", "use_peft": False, "domains": ["ct", "chest x"]}
    assert read == [changed | {"run_id": "3b"}]


def test_a_notebook_without_its_parameters_cell_is_told_so() -> None:
    with pytest.raises(ParameterError, match="No parameters cell has run"):
        read_notebook_parameters(notebook("x: int = 1", "y = 2"))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(declared_parameters(CELL))),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
)
def test_any_value_is_read_to_its_type_or_refused(name: str, value: Any) -> None:
    try:
        result = getattr(read(**{name: value}), name)
    except ParameterError as error:
        assert "\n" not in str(error)
    else:
        assert getattr(read(**{name: result}), name) == result
