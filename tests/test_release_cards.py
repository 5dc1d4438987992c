"""The cards of a release tell what the run's own files say, and change when these do."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from finished_runs import card_of, change, set_stage
from huggingface_hub import ModelCard, metadata_load, parse_eval_result_entries
from PIL import Image

from qoq_lib.publishing.cards import APACHE, model_card, terms_file
from qoq_lib.publishing.policy import Verdict, judge
from qoq_lib.publishing.record import read_record
from qoq_lib.publishing.weights import Weights
from qoq_lib.runs import write_text_atomic

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "done"))


def test_the_model_card_has_what_the_hub_reads(release: Path, finished: Path) -> None:
    card = ModelCard.load(release / "model" / "README.md")
    assert card.data.pipeline_tag == "image-text-to-text"
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert card.data.datasets == ["org/done-traces"]
    scores = json.loads((finished / "metrics.json").read_text())["trained"]
    whole = [one for one in card.data.eval_results if one.dataset_type == "run-done"]
    told = {one.metric_type: one for one in whole}
    assert told["f1"].metric_value == scores["overall"]["macro_f1"]
    assert told["f1"].metric_args["n"] == scores["overall"]["n"]
    assert told["f1"].metric_args["interval_95"] == scores["overall"]["intervals"]["macro_f1"]
    assert told["f1"].metric_args["floors"] == scores["overall"]["floors"]
    sets = {one.dataset_type for one in card.data.eval_results} - {"run-done"}
    assert sets == {f"phantom_{name}" for name in scores["domains"]}


def test_the_model_card_tells_results_run_and_limits(release: Path, finished: Path) -> None:
    text = (release / "model" / "README.md").read_text()
    entry = json.loads((finished / "run.json").read_text())["stages"]["03_drpo_train"]
    scores = json.loads((finished / "metrics.json").read_text())["trained"]["overall"]
    low, high = scores["intervals"]["macro_f1"]
    assert f"[{low:.3f}, {high:.3f}]" in text
    assert "not a medical device" in text.lower() and "drawings (the phantom)" in text
    assert "[Apache-2.0](https://www.apache.org/licenses/LICENSE-2.0)" in text
    assert f"{entry['hardware']['cpus']} CPU cores" in text
    assert (
        "papermill notebooks/03_drpo_train.ipynb runs/done/03_drpo_train.ipynb -p run_id done "
        "-p model_size tiny -p seed 7 -p method drpo -p start_from '' -p steps 2\n"
    ) in text
    for line in re.findall(r"\[[^]]*\]\((data_cards/[^)]*)\)", text):
        assert (release / "model" / line).is_file()


@pytest.mark.parametrize("measure", ["macro_f1", "balanced_accuracy"])
def test_a_changed_metric_changes_the_card(run: Path, measure: str) -> None:
    def edit(scores: Any) -> None:
        scores["trained"]["overall"][measure] = 0.123456
        scores["trained"]["domains"]["ct"]["datasets"]["phantom_ct"][measure] = 0.654321

    before = card_of(run)
    change(run / "metrics.json", edit)
    after = card_of(run)
    assert "0.123456" in after and "0.654321" in after and "0.123 [" in after
    assert "0.123456" not in before and "0.654321" not in before


def test_the_card_names_a_published_base_and_its_licence(run: Path) -> None:
    set_stage(run, "03_drpo_train", base_model="Qwen/Qwen2.5-VL-3B-Instruct")
    data = ModelCard(card_of(run)).data
    assert data.base_model == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert data.base_model_relation == "finetune"
    assert (data.license, data.license_name) == ("other", "qwen-research")


def test_the_card_of_an_adapter_is_one(finished: Path) -> None:
    record = read_record(finished)
    facts: dict[str, Any] = {"checkpoint": "trained", "parameters": 5, "dtypes": ("F32",)}
    weights = Weights(finished, "adapter", base_model="org/base@v1", **facts)
    text = model_card(record, weights, judge(record.learned_from, "weights", gated=False), "org/a")
    data = ModelCard(text).data
    assert (data.library_name, data.base_model) == ("peft", "org/base")
    assert data.base_model_relation == "adapter"
    assert 'from_pretrained("org/base", revision="v1", trust_remote_code=True)' in text


def test_terms_are_those_of_what_is_released() -> None:
    verdicts = (
        Verdict("a", "traces", "open", True, "CC-BY-4.0", "https://a.org", "named"),
        Verdict("b", "traces", "none", False, "agreement", "https://b.org", "kept"),
    )
    text = terms_file(APACHE, verdicts)["LICENSE.md"]
    assert "- a: CC-BY-4.0 (https://a.org)" in text and "b.org" not in text
    assert not terms_file(APACHE, verdicts[1:])


def test_a_changed_run_changes_the_card(run: Path) -> None:
    def edit(manifest: Any) -> None:
        entry = manifest["stages"]["03_drpo_train"]
        entry["hardware"]["gpus"] = [{"name": "Fictional 9", "memory_gib": 81.5}] * 2
        entry["seeds"]["torch"] = 987654
        entry["wall_seconds"] = 7200.0

    change(run / "run.json", edit)
    text = card_of(run)
    assert "2 x Fictional 9 (81.5 GiB)" in text and "987654" in text and "| 2.00 |" in text


def test_benchmark_results_are_read_by_the_hub(release: Path, finished: Path) -> None:
    text = (release / "model" / ".eval_results" / "questions.yaml").read_text()
    entries = {one.task_id: one for one in parse_eval_result_entries(yaml.safe_load(text))}
    scores = json.loads((finished / "metrics.json").read_text())["trained"]
    assert entries["overall"].value == scores["overall"]["macro_f1"]
    assert entries["ct"].value == scores["domains"]["ct"]["macro_f1"]
    assert {one.dataset_id for one in entries.values()} == {"org/questions"}


def test_the_traces_load_as_their_card_says(release: Path, tmp_path: Path) -> None:
    front = metadata_load(release / "traces" / "README.md")
    rows = {one["config_name"]: one["splits"][0]["num_examples"] for one in front["dataset_info"]}
    for config in ("default", "all"):
        loaded = load_dataset(
            str(release / "traces"), config, split="train", cache_dir=str(tmp_path)
        )
        assert len(loaded) == rows[config] > 0
    assert front["license"] == "apache-2.0" and front["size_categories"] == "n<1K"
    text = (release / "traces" / "README.md").read_text()
    assert "org/done" in text and "not a medical device" in text.lower()


CLEAN = """
import sys
sys.modules["qoq_lib"] = None  # "import qoq_lib" now fails
exec(sys.argv[1])
"""


def test_the_code_of_the_card_answers_without_this_package(
    release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (release / "model" / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)[0]
    assert '"org/done", trust_remote_code=True' in code
    code = code.replace("max_new_tokens=1024", "max_new_tokens=3, min_new_tokens=3")
    downloaded = tmp_path / "cache" / "models--org--done"
    shutil.copytree(release / "model", downloaded / "snapshots" / COMMIT)
    write_text_atomic(downloaded / "refs" / "main", COMMIT)
    Image.new("RGB", (56, 56), "grey").save(tmp_path / "image.png")
    np.save(tmp_path / "ecg.npy", np.random.default_rng(0).normal(size=(12, 5000)))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    answer = subprocess.run(
        [sys.executable, "-I", "-c", CLEAN, code],
        cwd=tmp_path,
        env={**environment, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        check=True,
        capture_output=True,
        text=True,
    )
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(code.replace("org/done", str(release / "model")), {})
    assert answer.stdout == capsys.readouterr().out
    assert len(answer.stdout) > 1
