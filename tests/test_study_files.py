"""The files of configs/study: each is read, and a bad one refused with its place."""

import json
from pathlib import Path
from typing import Any

import pytest

from qoq_lib.evaluation.study.config import StudyError, load_study
from qoq_lib.runs import project_root

ROOT = project_root()
FILES = sorted((ROOT / "configs" / "study").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_study_file_is_read(path: Path) -> None:
    study = load_study(path)
    assert study.size().training.steps > 0
    assert study.split == "test"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seeds": [1, 1]}, "seeds holds 1 twice"),
        ({"baselines": ["x"]}, "baseline 'x' is no arm"),
        ({"arms": [{"name": "grpo", "method": "grpo"}]}, "'grpo' alone, which is compared with"),
        ({"arms": [{"name": "a", "method": "nope"}]}, "Unknown method 'nope'"),
        ({"arms": [{"name": "a", "method": "drpo", "drpo": {"kmax": 1}}]}, "'kmax'.*k_max"),
        ({"arms": [{"name": "a", "drpo": {"k_max": 1}}]}, "without a method"),
        ({"arms": [{"name": "a", "method": "grpo", "reward": "x"}]}, "reward 'x'"),
        ({"budget": {"stepz": 1}}, "budget.stepz"),
        ({"data": {"source": "web"}}, "data.source"),
    ],
)
def test_a_bad_study_is_refused_with_its_place(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    study = load_study(ROOT / "configs" / "study" / "demo.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text(json.dumps(study.model_dump(exclude={"name"}) | change))
    with pytest.raises(StudyError, match=problem) as caught:
        load_study(path)
    assert str(path) in str(caught.value)
