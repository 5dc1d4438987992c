"""A release is made from the run's own files, is complete, and holds nothing that must stay."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_runs import card_of, change, set_stage
from huggingface_hub import ModelCard, metadata_load

from qoq_lib.data import cards as data_cards
from qoq_lib.data.cards import load_card
from qoq_lib.model.loading import load_model
from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.publishing.hub import publish
from qoq_lib.publishing.plan import plan_release
from qoq_lib.publishing.policy import PolicyError, judge
from qoq_lib.publishing.record import read_record
from qoq_lib.publishing.release import write_release
from qoq_lib.runs import read_result

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "done"))


def test_every_repository_of_a_release_can_be_planned(release: Path) -> None:
    model = plan_release(release / "model", "org/done", "model")
    traces = plan_release(release / "traces", "org/done-traces", "dataset")
    assert not model.gated and not traces.gated
    for plan, needed in ((model, "model.safetensors"), (traces, "traces.json")):
        paths = {file.path for file in plan.files}
        assert {needed, "README.md", "run.json", "data_cards/phantom.md"} <= paths
        assert {"notebooks/03_drpo_train.ipynb", "notebooks/05_domain_analysis.ipynb"} <= paths
    assert {file.path for file in model.files} >= {"metrics.json", ".eval_results/questions.yaml"}


def test_writing_a_release_again_changes_no_byte(run: Path, finished: Path, release: Path) -> None:
    before = {path.relative_to(release): path.read_bytes() for path in files(release)}
    write_release(finished, release, "org/done", benchmark="org/questions")
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


def without_patients(scores: Any) -> None:
    """Scores as an older version wrote them."""
    del scores["trained"]["overall"]["patients_of"]


def without_data_sets(scores: Any) -> None:
    """A gap as an older version wrote it."""
    gap = {"value": 0.1, "highest": "F", "lowest": "M", "interval": None}
    scores["trained"]["subgroups"] = {"sex": {"groups": {}, "missing": 0, "gaps": {"f1": gap}}}


REFUSED = [
    (lambda run: set_stage(run, "03_drpo_train", status="interrupted"), "recorded as interrupted"),
    (
        lambda run: set_stage(run, "03_drpo_train", dataset={"fingerprint": "other"}),
        "assembled again",
    ),
    (
        lambda run: set_stage(run, "05_domain_analysis", started="2020-01-01T00:00:00+00:00"),
        "older than its checkpoint",
    ),
    (
        lambda run: set_stage(run, "05_domain_analysis", status="failed"),
        "no finished domain analysis",
    ),
    (
        lambda run: set_stage(run, "03_drpo_train", base_model="org/unknown"),
        "licence of the base 'org/unknown'",
    ),
    (lambda run: (run / "metrics.json").unlink(), "metrics.json is missing"),
    (lambda run: change(run / "metrics.json", lambda m: m.pop("trained")), "no scores of the tra"),
    (lambda run: change(run / "metrics.json", without_patients), "how many patients each score"),
    (lambda run: change(run / "metrics.json", without_data_sets), "compare other data sets"),
    (lambda run: (run / "run.json").unlink(), "holds no run.json"),
    (lambda run: (run / "03_drpo_train.ipynb").write_text("{"), "ipynb is no readable notebook"),
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
    set_stage(run, "03_drpo_train", parameters=start)
    with pytest.raises(ReleaseError, match="'nowhere/trained', and what that was trained on"):
        read_record(run)
    start["start_from"] = str(first / "checkpoints" / "trained")
    set_stage(run, "03_drpo_train", parameters=start)
    found = read_record(run)
    assert found.start is not None and found.start.run_id == "first"
    assert "phantom_ct" in found.learned_from


def test_real_data_without_perception_questions_were_aligned_on_the_phantom(run: Path) -> None:
    real = replace(read_record(run), rows={"ptb_xl": {"train": 3, "test": 2}})
    assert set(real.learned_from) == {"ptb_xl", *load_card("phantom").datasets}
    assert all(one.allowed for one in judge(real.learned_from, "weights", gated=False))
    assert set(real.cards) == set(real.learned_from)
    closed = replace(real, rows={"mimic_cxr": {"train": 3}, "chexpert": {"test": 2}})
    shares = {one.dataset: one.share for one in judge(closed.learned_from, "weights", gated=True)}
    assert shares["mimic_cxr"] == "none" and "chexpert" not in shares


def test_a_release_is_loaded_by_its_hub_ids(
    hub: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    parts = write_release(finished, tmp_path / "release", "writer/done")
    plans = [plan_release(one.folder, one.repo_id, one.repo_type) for one in parts]
    assert all(publish(plan, tag="v1.0.0").new for plan in plans)
    assert not any(publish(plan, tag="v1.0.0").new for plan in plans)
    there, _ = load_model("writer/done", revision="v1.0.0")
    here, _ = load_model(finished / "checkpoints" / "trained")
    weights = here.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in there.state_dict().items())
