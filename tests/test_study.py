"""A study: its plan, its cache, what its arms share, and what happens to a killed one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock

from qoq_lib.evaluation.study import planning, running, workers
from qoq_lib.evaluation.study.comparing import save_tables
from qoq_lib.evaluation.study.config import Arm, Study, StudyError, load_study
from qoq_lib.evaluation.study.planning import ArmRun, Start, arm_run, arm_settings
from qoq_lib.evaluation.study.running import find_start, prepare, run_arm
from qoq_lib.runs import project_root
from qoq_lib.training import drpo
from qoq_lib.training.methods import load_method
from qoq_lib.training.rollouts import RolloutWriter, read_rollouts

ROOT = project_root()


@pytest.fixture(scope="module")
def study() -> Study:
    """The demo study, one seed and one step of alignment."""
    demo = load_study(ROOT / "configs" / "study" / "demo.yaml")
    assert demo.alignment is not None
    short = demo.alignment.model_copy(update={"answering_steps": 1})
    return demo.model_copy(update={"seeds": [3], "alignment": short})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, study: Study) -> Path:
    """A folder in which the study is finished, made in this process."""
    folder = tmp_path_factory.mktemp("study")
    start = prepare(study, 3, folder, None)
    for arm in study.arms:
        run_arm(study, arm_run(study, arm, start, folder))
    return folder


def runs(study: Study, folder: Path) -> dict[str, ArmRun]:
    start = find_start(study, 3, folder, None)
    assert start is not None
    return {arm.name: arm_run(study, arm, start, folder) for arm in study.arms}


def queued(study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pieces that ``run_study`` would hand to its workers."""
    labels: list[str] = []
    monkeypatch.setattr(workers._Crew, "add", lambda self, label, *_: labels.append(label))
    monkeypatch.setattr(workers._Crew, "results", lambda self: iter(()))
    workers.run_study(study, folder)
    return labels


def test_a_second_call_runs_nothing(
    study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queued(study, folder, monkeypatch) == []
    plan = json.loads((folder / "plan.json").read_text())
    assert [(run["arm"], run["seed"]) for run in plan["runs"]] == [("grpo", 3), ("drpo", 3)]
    assert all((folder / run["folder"] / "rollouts").is_dir() for run in plan["runs"])


def left_without_weights(folder: Path, copy: Path) -> Path:
    """A copy of the parquet and JSON files alone."""
    for file in folder.rglob("*"):
        if file.suffix in (".parquet", ".json"):
            target = copy / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return copy


def test_a_finished_study_is_opened_without_its_weights(
    study: Study, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queued(study, folder, monkeypatch) == []
    alone = left_without_weights(folder, tmp_path)
    assert queued(study, alone, monkeypatch) == []
    assert json.loads((alone / "plan.json").read_text()) == json.loads(
        (folder / "plan.json").read_text()
    )
    tables = save_tables(study, workers.runs_so_far(study, alone), alone)
    assert set(tables.results["arm"]) == {"grpo", "drpo"}


def test_an_arm_more_asks_for_the_weights_that_were_left_behind(
    study: Study, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queued(study, folder, monkeypatch) == []
    alone = left_without_weights(folder, tmp_path)
    more = study.model_copy(update={"arms": [*study.arms, Arm(name="untrained")]})
    labels: list[str] = []

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers._Crew, "add", lambda self, label, *_: labels.append(label))
    monkeypatch.setattr(workers._Crew, "results", stop)
    monkeypatch.setattr(running.stages, "align_base", stop)
    with pytest.raises(KeyboardInterrupt):
        workers.run_study(more, alone)
    assert labels == ["data and alignment, seed 3"]
    with pytest.raises(KeyboardInterrupt):
        prepare(more, 3, alone, None)


def test_starts_of_another_study_in_the_folder_stay_known(
    study: Study, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queued(study, folder, monkeypatch) == []
    alone = left_without_weights(folder, tmp_path)
    other = Start(4, alone / "data" / "4", alone / "starts" / "4", "fingerprint", "digest")
    planning.write_plan(study.model_copy(update={"seeds": [4]}), [other], alone)
    assert queued(study, alone, monkeypatch) == []


def test_an_unfinished_study_is_shown_as_far_as_it_is(
    study: Study, folder: Path, tmp_path: Path
) -> None:
    more = study.model_copy(update={"seeds": [3, 9], "arms": [*study.arms, Arm(name="untrained")]})
    shown = workers.runs_so_far(more, folder)
    assert [(run.arm.name, run.finished("test")) for run in shown] == [
        *(("grpo", True), ("drpo", True), ("untrained", False))
    ]
    with pytest.raises(StudyError, match="No run of study 'demo' is finished in .*: run it first"):
        workers.runs_so_far(study, tmp_path)


def test_only_the_arm_that_changed_is_run_again(
    study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = Arm(name="drpo", method="drpo", drpo={"k_max": 3})
    arms = [study.arms[0], changed, Arm(name="grpo_again", method="grpo"), Arm(name="untrained")]
    other = study.model_copy(update={"arms": arms})
    assert queued(other, folder, monkeypatch) == ["drpo, seed 3", "untrained, seed 3"]


def test_another_split_asks_for_answers_but_for_no_training(
    study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = study.model_copy(update={"split": "validation"})
    assert runs(tuning, folder)["drpo"].cost.is_file()
    assert queued(tuning, folder, monkeypatch) == ["grpo, seed 3", "drpo, seed 3"]


def test_settings_follow_the_presets_and_the_budget(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Start(0, Path("data"), Path("start"), "fingerprint", "digest")
    before = [planning.key_of(arm_settings(study, arm, start)) for arm in study.arms]
    longer = study.model_copy(update={"budget": study.budget.model_copy(update={"steps": 9})})
    after = [planning.key_of(arm_settings(longer, arm, start)) for arm in study.arms]
    assert not set(before) & set(after)
    tuned = replace(drpo.PRESETS["recommended"], power=0.9)
    monkeypatch.setitem(drpo.PRESETS, "recommended", tuned)
    grpo, recommended = [planning.key_of(arm_settings(study, arm, start)) for arm in study.arms]
    assert grpo == before[0] and recommended != before[1]


@pytest.mark.parametrize("beta", [0.0, 0.02])
def test_without_a_kl_damping_makes_no_other_training(study: Study, beta: float) -> None:
    start, loss = Start(0, Path("data"), Path("start"), "fingerprint", "digest"), {"beta": beta}
    drpo, damped = (
        arm_settings(study, Arm(name=name, method=name, grpo=loss), start)
        for name in ("drpo", "drpo_damped")
    )
    assert (drpo == damped) == (beta == 0)


def test_an_arm_may_have_a_learning_rate_of_its_own(study: Study, folder: Path) -> None:
    own = Arm(name="own", method="grpo", learning_rate=1e-4)
    start = Start(0, folder, folder, "data", "digest")
    told, shared = (
        arm_settings(study, arm, start)["size"]["training"]["learning_rate"]
        for arm in (own, Arm(name="shared", method="grpo"))
    )
    assert told == 1e-4 and shared == study.size().training.learning_rate != told
    with pytest.raises(ValueError, match="takes no drpo, grpo or learning_rate"):
        Arm(name="start", learning_rate=1e-4)


def test_arms_share_start_questions_and_test(study: Study, folder: Path) -> None:
    both = runs(study, folder)
    settings = [json.loads((run.folder / "settings.json").read_text()) for run in both.values()]
    assert settings[0]["start"] == settings[1]["start"]
    asked = {name: read_rollouts(run.folder / "rollouts") for name, run in both.items()}
    order = [table[["step", "id", "sample"]].values.tolist() for table in asked.values()]
    assert order[0] == order[1] and len(order[0]) == 2 * 4 * 2
    first = [table[table["step"] == 1]["completion"].tolist() for table in asked.values()]
    assert first[0] == first[1]
    for decoding in ("greedy", "sampled"):
        answers = [pd.read_parquet(run.predictions("test", decoding)) for run in both.values()]
        assert answers[0]["id"].tolist() == answers[1]["id"].tolist()
        assert len(answers[0]) == 45


def test_a_stopped_arm_goes_on_and_ends_like_one_left_alone(
    study: Study, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runs(study, folder)["drpo"]
    again = replace(whole, folder=tmp_path / "again")
    write = RolloutWriter.write

    def stop_at_two(writer: RolloutWriter, step: int, records: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt
        write(writer, step, records)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RolloutWriter, "write", stop_at_two)
        patch.setattr(running, "SAVE_MINUTES", 1e-9)  # after every step
        run_arm(study, again)
    assert not again.finished("test")
    run_arm(study, again)
    cost = json.loads(again.cost.read_text())
    assert cost["resumed"] and not json.loads(whole.cost.read_text())["resumed"]
    assert cost["completions"] == 16
    tables = [read_rollouts(run.folder / "rollouts") for run in (whole, again)]
    assert tables[0]["completion"].tolist() == tables[1]["completion"].tolist()
    answers = [pd.read_parquet(run.predictions("test", "sampled")) for run in (whole, again)]
    assert answers[0]["completion"].tolist() == answers[1]["completion"].tolist()


def test_the_cost_counts_a_question_for_each_time_that_it_is_asked(
    study: Study, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "rollouts").mkdir()
    for file in (runs(study, folder)["grpo"].folder / "rollouts").iterdir():
        rollouts = pd.read_parquet(file)
        again = rollouts[rollouts["id"] == rollouts["id"][0]]
        pd.concat([rollouts, again]).to_parquet(tmp_path / "rollouts" / file.name, index=False)
    # Two steps of five groups of two, two of them of one question; one greedy answer a group.
    assert running._completions(tmp_path, load_method("grpo")) == 20
    assert running._completions(tmp_path, load_method("remax")) == 30


def test_a_failed_piece_stops_no_other_and_a_dead_worker_is_one_sentence() -> None:
    with workers._Crew(1) as crew:
        crew.add("bad", divmod, 1, 0)
        crew.add("good", divmod, 7, 2)
        made = []
        with pytest.raises(StudyError, match="^bad failed: ZeroDivisionError"):
            made.extend(crew.results())  # keeps what came before the error
        assert made == [(3, 1)]
        crew.add("dying", os._exit, 9)
        with pytest.raises(StudyError, match=r"worker process died .* the rest resumes\.$"):
            list(crew.results())


def test_two_processes_do_not_share_a_folder(study: Study, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".study.lock"), pytest.raises(StudyError, match="Another process"):
        workers.run_study(study, tmp_path)


def test_the_kit_is_asked_for(tmp_path: Path) -> None:
    kit = load_study(ROOT / "configs" / "study" / "kit.yaml")
    with pytest.raises(StudyError, match="data_root"):
        workers.run_study(kit, tmp_path)


@pytest.mark.slow
def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "qoq_lib.evaluation.study", "configs/study/demo.yaml"]
    options: dict[str, Any] = {
        "cwd": ROOT,
        "env": os.environ | {"PYTHONPATH": str(ROOT), "QOQ_RUNS": str(tmp_path)},
        "stdout": subprocess.DEVNULL,
    }
    first = subprocess.Popen([*call, "--workers", "2"], **options)
    end = time.monotonic() + 300
    while not list(tmp_path.glob("study/arms/*/cost.json")):
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = {path: path.read_bytes() for path in tmp_path.glob("study/arms/*/cost.json")}
    again = subprocess.run([*call, "--workers", "2"], timeout=300, **options)
    assert again.returncode == 0
    assert all(path.read_bytes() == content for path, content in done.items())
    results = pd.read_csv(tmp_path / "study" / "results.csv")
    overall = results[(results["domain"] == "overall") & (results["metric"] == "macro_f1")]
    assert overall.groupby(["arm", "decoding"])["seed"].nunique().eq(2).all()
    comparison = pd.read_csv(tmp_path / "study" / "comparison.csv")
    assert set(comparison["baseline"]) == {"grpo", "floor_all_options"}
    assert set(comparison.query("baseline == 'grpo'")["arm"]) == {"drpo"}
    assert (comparison["seeds"] == 2).all()
    assert len(list(tmp_path.glob("study/arms/*"))) == 4
