"""Models that are not ours: loaded, asked a run's questions, scored beside the run's own models."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chats import Tiny
from datasets import Dataset
from stock_models import tiny_llava
from test_notebooks_run import execute, printed

from qoq_lib.data.phantom import make_phantom
from qoq_lib.evaluation.ask import main
from qoq_lib.evaluation.metrics import PredictionsError, evaluate
from qoq_lib.evaluation.predict import predict
from qoq_lib.evaluation.prompting import prompt_inputs, view_of, without_ecg
from qoq_lib.evaluation.report import read_predictions
from qoq_lib.model.any_model import load_any
from qoq_lib.model.files import LoadError
from qoq_lib.model.plain import write_plain
from qoq_lib.runs import read_result


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llava(tmp_path_factory.mktemp("hub") / "llava-tiny")


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Twelve questions, one of them with an ECG."""
    return make_phantom(200, seed=0).select(range(12))


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run that the command finds."""
    monkeypatch.setenv("QOQ_RUNS", str(tmp_path))
    return Path(shutil.copytree(finished, tmp_path / "done"))


def asked(model: Any, rows: Dataset, **options: Any) -> pd.DataFrame:
    return predict(*model, rows, **{"style": "reasoning", "max_new_tokens": 6} | options)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_another_architecture_answers_in_batches_as_alone(
    llava: Path, rows: Dataset, temperature: float
) -> None:
    model, kept = load_any(str(llava)), without_ecg(rows)
    text = kept.map(lambda row, place: {"images": row["images"] * (place != 1)}, True)
    table = asked(model, text, batch_size=4, temperature=temperature)
    assert table["completion"].nunique() > 1 and set(table["loaded_from"]) == {"llava-tiny"}
    if not temperature:
        assert (
            table["completion"].tolist() == asked(model, text, batch_size=1)["completion"].tolist()
        )
    assert evaluate(table)["overall"]["rows"]["exact_match"] == len(rows) - 1
    assert table["image_size"][0] == list(rows[0]["images"][0].size)  # its images as they are


def test_its_own_chat_template_asks_it(llava: Path, rows: Dataset) -> None:
    model, processor = load_any(str(llava))
    inputs = prompt_inputs(model, processor, [view_of(rows[0], processor)], "reasoning")
    said = processor.tokenizer.decode(inputs["input_ids"][0])
    assert said.startswith("USER: <image>") and said.endswith("ASSISTANT:")
    assert "Options:" in said and "helpful assistant" not in said  # which is Qwen2.5-VL's


def test_what_it_cannot_be_asked_is_one_sentence(llava: Path, rows: Dataset) -> None:
    model = load_any(str(llava))
    with pytest.raises(PredictionsError, match="^1 of 12 rows have an ECG, which this model"):
        asked(model, rows)
    with pytest.raises(PredictionsError, match="^Options are scored for QoQ and Qwen2.5-VL"):
        asked(model, without_ecg(rows), logprobs=True)


def test_ours_and_a_qwen_take_our_own_path(
    loud: Tiny, rows: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in loud:
        part.save_pretrained(tmp_path / "qoq")
    plain = write_plain(tmp_path / "qoq", tmp_path / "qwen")
    own, qwen = load_any(str(tmp_path / "qoq")), load_any(str(plain))
    said = [asked(model, rows, style="brief", logprobs=True) for model in (loud, own)]
    assert said[0]["completion"].tolist() == said[1]["completion"].tolist()
    assert asked(qwen, rows, logprobs=True)["option_logprobs"].notna().all()  # an ECG among them
    assert (
        "qwen knows no ECG: it is asked about them through an untrained" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "chat_template.jinja").unlink(),
            "no image processor with a chat",
        ),
        (lambda folder: change(folder, model_type="bert"), "can open by itself: Unrecognized"),
        (lambda folder: change(folder, model_type="own"), "can open by itself"),
        (lambda folder: change(folder, text_config={"num_hidden_layers": 3}), "lacks or misshapes"),
        (lambda folder: change(folder, text_config={"intermediate_size": 8}), "lacks or misshapes"),
        (lambda folder: (folder / "model.safetensors").unlink(), "can open by itself"),
        (lambda folder: os.truncate(folder / "model.safetensors", 9999), "can open by itself"),
    ],
)
def test_a_folder_that_cannot_be_asked_is_one_sentence(
    llava: Path, tmp_path: Path, damage: Any, message: str
) -> None:
    folder = Path(shutil.copytree(llava, tmp_path / "model"))
    damage(folder)
    with pytest.raises(LoadError, match=message) as caught:
        load_any(str(folder))
    assert "\n" not in str(caught.value)


def test_code_that_a_model_brings_along_is_not_run(llava: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llava, tmp_path / "model"))
    change(folder, model_type="own", auto_map={"AutoConfig": "evil.Config"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass")
    with pytest.raises(LoadError, match="can open by itself"):
        load_any(str(folder))
    assert not (tmp_path / "ran").exists()


def change(folder: Path, **values: Any) -> None:
    """Values of ``config.json``, those of a part added to what it holds."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in values.items():
        config[name] = config[name] | value if isinstance(config.get(name), dict) else value
    path.write_text(json.dumps(config))


def test_the_command_puts_its_answers_beside_the_runs_own(
    run: Path, llava: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(llava), "--run", "done", "--max-new-tokens", "4", "--style", "brief"])
    said = capsys.readouterr().out
    assert "questions have an ECG, which this model cannot read: they are left out" in said
    tables = read_predictions(run / "predictions")
    assert list(tables) == ["llava-tiny", "aligned", "trained"]
    assert set(tables["llava-tiny"]["id"]) < set(tables["trained"]["id"])
    out = run.parent / "05.ipynb"
    done = execute("05_domain_analysis", out, run.parent, run.parent, "-p", "run_id", "done")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "so without a gain: llava-tiny." in printed(out)
    assert "exact_match_llava-tiny" in read_result(out)["metrics"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--run", "dome"], r"There is no run 'dome' in .*\(done\)"),
        (["--run", "done", "--split", "valid"], "have no split 'valid': use one of"),
        (["--run", "done", "--name", "trained"], "is of a model of run 'done' itself"),
        (["--run", "done", "--name", "a/b"], "'a/b' is not that of a file"),
        (["--run", "done", "--batch-size", "0"], "^2$"),
        (["--run", "done", "--temperature", "-1"], "^2$"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    run: Path, llava: Path, options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        main([str(llava), *options])


def test_a_revision_is_named_behind_the_hub_id(run: Path, llava: Path) -> None:
    with pytest.raises(SystemExit, match=r"owner/model at v1 \(model, no folder here\)"):
        main(["owner/model@v1", "--run", "done"])
