"""What notebook 00 asks and of whom: the phantom's or the user's case, the checkpoint meant."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from PIL import Image

from qoq_lib.data.readers import MediaError
from qoq_lib.evaluation.quickstart import (
    QuestionError,
    check_size,
    example_rows,
    trace_table,
    untrained_note,
)
from qoq_lib.model.loading import LoadError, load_size
from qoq_lib.training.checkpoints import find_checkpoint

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """Paths of an image and of an ECG in microvolts."""
    Image.new("RGB", (90, 60), "navy").save(tmp_path / "skin.png")
    wave = 1000 * np.sin(np.arange(2500) / 20 + np.arange(12)[:, None]).T
    wfdb.wrsamp("beat", 250, ["uV"] * 12, LEADS, wave, fmt=["16"] * 12, write_dir=str(tmp_path))
    return {"image": str(tmp_path / "skin.png"), "ecg": str(tmp_path / "beat.hea")}


@pytest.mark.parametrize("seed", [0, 77])
def test_the_phantom_stands_in_for_whatever_is_not_given(seed: int) -> None:
    rows = example_rows(seed=seed)
    media = {name: (len(row["images"]), row["ecg"] is not None) for name, row in rows.items()}
    assert media == {"image": (1, False), "ecg": (0, True), "both": (1, True)}
    assert all(
        set(row["answers"]) <= set(row["options"]) and row["answers"] for row in rows.values()
    )
    assert rows["image"]["boxes"] and rows["both"]["boxes"]
    assert [name for name, row in rows.items() if row["report"]] == ["both"]


def test_own_files_take_the_phantoms_place_and_have_no_known_answer(own: dict[str, str]) -> None:
    rows = example_rows(**own, report="No fever.")
    assert rows["image"]["images"][0].size == rows["both"]["images"][0].size == (90, 60)
    assert np.abs(rows["both"]["ecg"]).max() == pytest.approx(1, abs=0.01)  # millivolts
    assert rows["ecg"]["ecg_rate_hz"] == 250 and rows["ecg"]["id"] == "beat.hea"
    assert rows["both"]["report"] == "No fever."
    assert all(not row["answers"] and not row["boxes"] for row in rows.values())


def test_an_own_question_is_asked_where_something_of_the_users_is_shown(
    own: dict[str, str],
) -> None:
    asked = {"question": "Is it benign?", "options": "yes; no ;yes;"}
    rows = example_rows(image=own["image"], **asked)
    assert rows["image"]["question"] == "Is it benign?\nOptions: yes; no"
    assert rows["both"]["options"] == ["yes", "no"]
    assert rows["ecg"]["question"].startswith("ECG:") and rows["ecg"]["answers"]
    assert {row["question"] for row in example_rows(**asked).values()} == {
        "Is it benign?\nOptions: yes; no"
    }


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="^A question needs options"):
        example_rows(question="Is it benign?")
    with pytest.raises(QuestionError, match="^A question needs options"):
        example_rows(options="yes; no")
    with pytest.raises(MediaError, match="none.png is missing"):
        example_rows(image=str(tmp_path / "none.png"))
    with pytest.raises(MediaError, match="none.hea is missing"):
        example_rows(ecg=str(tmp_path / "none"))


def make_run(root: Path, name: str, size: str, made: dict[str, int]) -> None:
    """A run with these checkpoints, written so many seconds after the epoch."""
    for checkpoint, second in made.items():
        folder = root / name / "checkpoints" / checkpoint
        folder.mkdir(parents=True)
        file = folder / ("config.json" if size == "tiny" else "adapter_config.json")
        file.write_text("{}")
        os.utime(file, (second, second))
    (root / name).mkdir(exist_ok=True)
    stages = {"03_drpo_train": {"parameters": {"model_size": size}}}
    manifest = {"schema_version": 1, "run_id": name, "stages": stages}
    (root / name / "run.json").write_text(json.dumps(manifest))


def test_a_model_is_found_by_size_run_folder_or_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QOQ_RUNS", str(tmp_path))
    assert find_checkpoint("", "tiny") is None
    make_run(tmp_path, "old", "tiny", {"aligned": 10, "trained": 20})
    make_run(tmp_path, "new", "tiny", {"aligned": 30})
    make_run(tmp_path, "large", "7b", {"aligned": 40, "trained": 50})
    make_run(tmp_path, "empty", "tiny", {})
    (tmp_path / "new" / "checkpoints" / "trained.part").mkdir()
    aligned = str(tmp_path / "new" / "checkpoints" / "aligned")
    assert find_checkpoint("", "tiny") == aligned
    assert find_checkpoint("", "7b") == str(tmp_path / "large" / "checkpoints" / "trained")
    assert find_checkpoint("", "3b") is None
    assert find_checkpoint("old", "tiny") == str(tmp_path / "old" / "checkpoints" / "trained")
    assert find_checkpoint(aligned, "tiny") == aligned
    assert find_checkpoint("someone/qoq", "7b") == "someone/qoq"
    with pytest.raises(LoadError, match="empty holds no aligned or trained checkpoint: run"):
        find_checkpoint("empty", "tiny")


def test_a_model_of_another_size_is_refused(tiny: tuple[Any, Any]) -> None:
    check_size(tiny[0], load_size("tiny"))
    with pytest.raises(LoadError, match="million parameters, which is no model_size '7b'"):
        check_size(tiny[0], load_size("7b"))


@pytest.mark.parametrize(("size", "said"), [("tiny", "RANDOM WEIGHTS"), ("7b", "UNTRAINED ECG")])
def test_an_untrained_start_is_named_with_the_way_out(size: str, said: str) -> None:
    note = untrained_note(load_size(size))
    assert said in note and "notebook 03" in note and "\n" not in note


def test_a_trace_shows_reasoning_regions_and_answer() -> None:
    row = {"id": "x/1", "question": "Which?", "report": None, "options": ["a", "b"], "answers": []}
    told = "<think>It is\nround.</think> \\boxed{b}"
    parts = trace_table(row, told, [[1.2, 2.0, 3.0, 4.0]])["x/1"]
    assert parts["completion"] == told and parts["reasoning"] == "It is\nround."
    assert parts["answer"] == ("b",) and parts["readable"] == "yes"
    assert parts["regions (pixels)"] == [[1, 2, 3, 4]]
    assert parts["report"] is None and parts["true answer"] is None
    assert trace_table(row, "\n\n")["x/1"]["completion"] == "'\\n\\n'"
