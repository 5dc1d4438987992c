"""A release is made from the run's own files, is complete, and holds nothing that must stay."""

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
from finished_runs import change, finished_run, record
from huggingface_hub import ModelCard, metadata_load, parse_eval_result_entries
from PIL import Image

from qoq_lib.data import cards as data_cards
from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.publishing.plan import plan_release
from qoq_lib.publishing.policy import PolicyError
from qoq_lib.publishing.record import read_record
from qoq_lib.publishing.release import write_release
from qoq_lib.runs import read_result, write_text_atomic
from qoq_lib.training.checkpoints import save_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def made(loud: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = finished_run(tmp_path_factory.mktemp("runs") / "done")
    save_checkpoint(*loud, run / "checkpoints" / "trained")
    record(run)
    return run


@pytest.fixture(scope="module")
def release(made: Path) -> Path:
    write_release(made, made.parent / "release", "org/done", benchmark="org/questions")
    return made.parent / "release"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "done"))


def card_of(run: Path) -> str:
    parts = write_release(run, run.parent / "release", "org/done", what="model")
    return (parts[0].folder / "README.md").read_text(encoding="utf-8")


def test_every_repository_of_a_release_can_be_planned(release: Path) -> None:
    model = plan_release(release / "model", "org/done", "model")
    traces = plan_release(release / "traces", "org/done-traces", "dataset")
    assert not model.gated and not traces.gated
    for plan, needed in ((model, "model.safetensors"), (traces, "traces.json")):
        paths = {file.path for file in plan.files}
        assert {needed, "README.md", "run.json", "data_cards/phantom.md"} <= paths
        assert {"notebooks/03_drpo_train.ipynb", "notebooks/05_domain_analysis.ipynb"} <= paths
    assert {file.path for file in model.files} >= {"metrics.json", ".eval_results/questions.yaml"}


def test_the_model_card_has_what_the_hub_reads(release: Path, made: Path) -> None:
    card = ModelCard.load(release / "model" / "README.md")
    assert card.data.pipeline_tag == "image-text-to-text"
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert card.data.datasets == ["org/done-traces"]
    scores = json.loads((made / "metrics.json").read_text())["trained"]
    whole = [one for one in card.data.eval_results if one.dataset_type == "run-done"]
    told = {one.metric_type: one for one in whole}
    assert told["f1"].metric_value == scores["overall"]["macro_f1"]
    assert told["f1"].metric_args["n"] == scores["overall"]["n"]
    assert told["f1"].metric_args["interval_95"] == scores["overall"]["intervals"]["macro_f1"]
    assert told["f1"].metric_args["floors"] == scores["overall"]["floors"]
    sets = {one.dataset_type for one in card.data.eval_results} - {"run-done"}
    assert sets == {f"phantom_{name}" for name in scores["domains"]}


def test_the_model_card_tells_results_run_and_limits(release: Path, made: Path) -> None:
    text = (release / "model" / "README.md").read_text()
    entry = json.loads((made / "run.json").read_text())["stages"]["03_drpo_train"]
    low, high = json.loads((made / "metrics.json").read_text())["trained"]["overall"]["intervals"][
        "macro_f1"
    ]
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


def test_a_changed_run_changes_the_card(run: Path) -> None:
    def edit(manifest: Any) -> None:
        entry = manifest["stages"]["03_drpo_train"]
        entry["hardware"]["gpus"] = [{"name": "Fictional 9", "memory_gib": 81.5}] * 2
        entry["seeds"]["torch"] = 987654
        entry["wall_seconds"] = 7200.0

    change(run / "run.json", edit)
    text = card_of(run)
    assert "2 x Fictional 9 (81.5 GiB)" in text and "987654" in text and "| 2.00 |" in text


def test_benchmark_results_are_read_by_the_hub(release: Path, made: Path) -> None:
    text = (release / "model" / ".eval_results" / "questions.yaml").read_text()
    entries = {one.task_id: one for one in parse_eval_result_entries(yaml.safe_load(text))}
    scores = json.loads((made / "metrics.json").read_text())["trained"]
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


def test_writing_a_release_again_changes_no_byte(run: Path, made: Path, release: Path) -> None:
    before = {path.relative_to(release): path.read_bytes() for path in files(release)}
    write_release(made, release, "org/done", benchmark="org/questions")
    assert {path.relative_to(release): path.read_bytes() for path in files(release)} == before
    change(run / "run.json", lambda value: value["stages"].update(add_publishing(value)))
    write_release(run, run.parent / "again", "org/done", benchmark="org/questions")
    again = run.parent / "again"
    assert {path.relative_to(again): path.read_bytes() for path in files(again)} == before


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def add_publishing(manifest: Any) -> Any:
    entry = manifest["stages"]["05_domain_analysis"]
    return {"06_publish_to_hub": entry | {"status": "running", "wall_seconds": None}}


def test_notebooks_leave_without_paths_of_the_machine(release: Path) -> None:
    notebook = release / "model" / "notebooks" / "05_domain_analysis.ipynb"
    assert read_result(notebook)["stage"] == "05_domain_analysis"
    assert "someone" not in notebook.read_text() and "image/png" in notebook.read_text()


def test_gguf_is_a_repository_of_its_own_where_llama_cpp_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    asked: dict[str, Any] = {"what": "model", "gguf": True}
    parts = write_release(run, tmp_path / "release", "org/done", **asked)
    assert [one.repo_type for one in parts] == ["model"]
    assert "no GGUF files are written" in capsys.readouterr().out
    written = "import pathlib, sys; pathlib.Path(sys.argv[5]).write_bytes(b'GGUF')"
    (tmp_path / "convert_hf_to_gguf.py").write_text(written)
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    made = write_release(run, tmp_path / "release", "org/done", **asked)[1]
    assert made.repo_id == "org/done-GGUF"
    plan = plan_release(made.folder, made.repo_id, "model")
    paths = {file.path for file in plan.files}
    assert paths == {"README.md", "run.json", "done-f16.gguf", "mmproj-done-f16.gguf"}
    data = ModelCard(plan.card).data
    assert (data.base_model, data.base_model_relation) == ("org/done", "quantized")
    assert "no ECG path" in plan.card


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path, **share: str) -> None:
    """Data cards as they are, but for what the phantom's opens."""
    text = (data_cards.card.project_root() / "data_cards" / "phantom.md").read_text()
    for what, to in share.items():
        text = text.replace(f"  {what}: open", f"  {what}: {to}")
    (folder / "data_cards").mkdir()
    (folder / "data_cards" / "phantom.md").write_text(text)
    for module in ("qoq_lib.data.cards.card", "qoq_lib.publishing.evidence"):
        monkeypatch.setattr(f"{module}.project_root", lambda: folder)


def test_notebooks_show_nothing_of_data_that_are_not_open(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, tmp_path, images="none")
    card_of(run)
    notebook = tmp_path / "release" / "model" / "notebooks" / "05_domain_analysis.ipynb"
    assert "image/png" not in notebook.read_text() and read_result(notebook)["metrics"]


def test_weights_leave_only_as_the_data_cards_allow(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, tmp_path, weights="gated")
    with pytest.raises(PolicyError, match="gated repository only"):
        card_of(run)
    assert not (tmp_path / "release").exists()
    write_release(run, tmp_path / "release", "org/done", what="model", gated=True)
    plan = plan_release(tmp_path / "release" / "model", "org/done", "model")
    assert plan.gated and "https://www.apache.org/licenses/LICENSE-2.0" in plan.card
    front = metadata_load(tmp_path / "release" / "model" / "README.md")
    assert (front["license"], front["license_link"]) == ("other", "LICENSE.md")
    assert "phantom_ct" in (tmp_path / "release" / "model" / "LICENSE.md").read_text()


def test_weights_of_forbidden_data_stay(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, tmp_path, weights="none")
    with pytest.raises(PolicyError, match="may not leave this machine"):
        write_release(run, tmp_path / "release", "org/done", what="model", gated=True)
    assert not (tmp_path / "release").exists()


def stage(name: str, **facts: Any) -> Any:
    return lambda run: change(run / "run.json", lambda m: m["stages"][name].update(facts))


REFUSED = [
    (stage("03_drpo_train", status="interrupted"), "recorded as interrupted"),
    (stage("03_drpo_train", dataset={"fingerprint": "other"}), "assembled again"),
    (stage("05_domain_analysis", started="2020-01-01T00:00:00+00:00"), "older than its checkpoint"),
    (stage("05_domain_analysis", status="failed"), "no finished domain analysis"),
    (stage("03_drpo_train", base_model="org/unknown"), "licence of the base 'org/unknown'"),
    (lambda run: (run / "metrics.json").unlink(), "metrics.json is missing"),
    (lambda run: change(run / "metrics.json", lambda m: m.pop("trained")), "no scores of the tra"),
    (lambda run: (run / "run.json").unlink(), "holds no run.json"),
    (lambda run: shutil.rmtree(run / "checkpoints"), "holds no checkpoint"),
    (lambda run: shutil.rmtree(run / "data"), "holds no assembled data set"),
]


@pytest.mark.parametrize("damage, sentence", REFUSED, ids=[words for _, words in REFUSED])
def test_what_does_not_belong_together_is_refused(run: Path, damage: Any, sentence: str) -> None:
    damage(run)
    with pytest.raises(Exception, match=sentence) as refused:
        card_of(run)
    assert hasattr(refused.value, "_render_traceback_") and "\n" not in str(refused.value)
    assert not (run.parent / "release").exists()


def test_a_training_from_another_run_answers_for_its_data(run: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(run, tmp_path / "first"))
    start = {"run_id": "done", "model_size": "tiny", "start_from": "nowhere/trained"}
    stage("03_drpo_train", parameters=start)(run)
    with pytest.raises(ReleaseError, match="'nowhere/trained', and what that was trained on"):
        read_record(run)
    start["start_from"] = str(first / "checkpoints" / "trained")
    stage("03_drpo_train", parameters=start)(run)
    found = read_record(run)
    assert found.start is not None and found.start.run_id == "first"
    assert "phantom_ct" in found.learned_from


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
