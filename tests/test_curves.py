"""Curves of training runs: what is read, computed and drawn, also of unfinished and old runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fictions import rollouts, training
from matplotlib.figure import Figure
from matplotlib.text import Text

from qoq_lib.domains import DOMAINS, PALETTE
from qoq_lib.evaluation import plots
from qoq_lib.evaluation.curves import band, gain_table, missing_measures, per_step, smoothed
from qoq_lib.evaluation.training_runs import (
    arms,
    first_and_last,
    groups,
    read_training_run,
    read_training_runs,
    runs_table,
)
from qoq_lib.runs import RunError
from qoq_lib.training.monitoring.log import LOG_FILE, write_log

plots.use_theme()
DRAWN = (plots.reward_curves, plots.reward_by, plots.signal_share, plots.training_health)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def scaled(table: pd.DataFrame) -> pd.DataFrame:
    """Rollouts as DRPO writes them: ct has the higher temperature."""
    hot = table["domain"].map({"ct": 4.0, "ecg": 1.0})
    return table.assign(domain_temperature=hot, cluster_temperature=2.0, weight=1 / (2 * hot))


def written(folder: Path, table: pd.DataFrame, **parameters: Any) -> Path:
    """A run folder as training leaves it, a file per step."""
    (folder / "rollouts").mkdir(parents=True)
    for step, rows in table.groupby("step"):
        rows.to_parquet(folder / "rollouts" / f"step-{step:08d}.parquet", index=False)
    stage = {"status": "completed", "parameters": {"run_id": folder.name} | parameters}
    manifest = {"schema_version": 1, "run_id": folder.name, "stages": {"03_drpo_train": stage}}
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def test_groups_without_signal_are_those_of_one_reward() -> None:
    found = groups(rollouts())
    ct = found[found["domain"] == "ct"].set_index("step")
    assert ct["without_signal"].tolist() == [False] * 3 + [True] * 3
    assert ct["all_correct"].tolist() == [False] * 3 + [True] * 3
    assert found[found["domain"] == "ecg"]["none_correct"].all()
    assert groups(rollouts().assign(reward=np.nan))["without_signal"].all()


def test_a_question_that_a_step_asks_twice_makes_two_groups() -> None:
    once = rollouts(("ct",), steps=1)
    right, wrong = once.assign(reward=1.0, correct=True), once.assign(reward=0.0, correct=False)
    found = groups(pd.concat([right, wrong], ignore_index=True))
    assert found["without_signal"].tolist() == [True, True]
    assert found["all_correct"].tolist() == [True, False]


def test_first_and_last_tenth_and_their_gain() -> None:
    ends = first_and_last(rollouts(steps=20))
    assert [sorted(part["step"].unique()) for part in ends.values()] == [[1, 2], [19, 20]]
    gain = gain_table([training(rollouts=rollouts(steps=20))])
    assert list(gain.index) == ["CT", "ECG", "All"]
    assert gain.loc["CT"].tolist() == ["drpo", 80, 0.25, 1.0, 0.75]
    assert gain.loc["All", "last"] == 0.5
    gap = rollouts(steps=20).query("not (domain == 'ecg' and step < 5)")
    assert np.isnan(gain_table([training(rollouts=gap)]).loc["ECG", "first"])


def test_gains_by_data_set_have_a_row_per_method() -> None:
    table = rollouts()
    table["dataset"] = np.where(table["step"] % 2, "odd", "even")
    both = [training(rollouts=table), training("b", "grpo", rollouts=table)]
    gain = gain_table(both, "accuracy", "dataset")
    assert list(gain.index[:4]) == ["CT: even", "CT: even", "CT: odd", "CT: odd"]
    assert gain["method"].tolist()[:2] == ["drpo", "grpo"]


def test_smoothing_leaves_gaps_out() -> None:
    values = pd.Series([0.0, np.nan, 1.0, 1.0], index=[1, 2, 3, 4])
    assert smoothed(values, 2).to_dict() == {1: 0.0, 3: 0.5, 4: 1.0}


def test_a_band_spans_its_runs_and_ends_with_the_shortest() -> None:
    low, high = rollouts(("ct",)), rollouts(("ct",), steps=4)
    runs = [training(rollouts=low.assign(reward=0.0)), training(rollouts=high.assign(reward=1.0))]
    found = band(runs, "reward", 3)
    assert list(found.index) == [1, 2, 3, 4]
    assert found.iloc[0].to_dict() == {"mean": 0.5, "low": 0.0, "high": 1.0}


def test_a_band_bridges_the_steps_that_did_not_ask_a_rare_domain() -> None:
    sparse = rollouts(("ct",)).query("step in (1, 5)").assign(reward=2.0)
    runs = [training(rollouts=rollouts(("ct",)).assign(reward=0.0)), training(rollouts=sparse)]
    found = band(runs, "reward", 1, {"domain": "ct"})
    assert found["mean"].to_dict() == dict.fromkeys([1, 2, 3, 4, 5], 1.0)


def test_seeds_are_one_arm_and_other_settings_another() -> None:
    runs = [training("a", seed=0), training("b", seed=1), training("c", "grpo")]
    assert {name: len(members) for name, members in arms(runs).items()} == {"drpo": 2, "grpo": 1}
    runs = [training("a", settings={"steps": 9}), training("b", settings={"steps": 7})]
    assert list(arms(runs)) == ["drpo, steps 9", "drpo, steps 7"]


def test_what_changes_no_result_splits_no_arm(tmp_path: Path) -> None:
    older = {"steps": 9, "method": "drpo"}
    newer = older | {"parallel": "ddp", "tracker": "none", "backend": "peft"}
    newer["compile_decoding"] = True
    elsewhere = {"parallel": "fsdp2", "num_processes": 2, "rollout_server": "http://h:1"}
    watched = newer | elsewhere | {"tracker": "trackio", "save_minutes": 5.0}
    watched["compile_decoding"] = False
    told = {"older": older, "newer": newer, "watched": watched, "short": watched | {"steps": 7}}
    runs = [
        read_training_run(written(tmp_path / name, rollouts(steps=1), seed=seed, **parameters))
        for seed, (name, parameters) in enumerate(told.items())
    ]
    assert {label: len(members) for label, members in arms(runs[:3]).items()} == {"drpo": 3}
    assert list(arms(runs)) == ["drpo, steps 9", "drpo, steps 7"]


def test_a_run_folder_is_read_with_its_method_and_seed(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", scaled(rollouts()), method="drpo", seed=3, steps=6)
    write_log(folder, pd.DataFrame({"step": [1, 2], "loss": [0.0, 0.0], "kl": [0.0, 0.5]}))
    run = read_training_run(folder)
    assert (run.run_id, run.method, run.seed, run.settings) == ("one", "drpo", 3, {"steps": 6})
    assert per_step(run, "kl").to_dict() == {1: 0.0, 2: 0.5}
    assert run.has_temperatures
    assert per_step(run, "weight", {"domain": "ct"}).unique() == pytest.approx([1 / 8])
    assert runs_table([run]).loc["one", "logged steps"] == 2


def test_runs_are_read_by_name_each_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("QOQ_RUNS", str(tmp_path))
    for name in ("a", "b"):
        written(tmp_path / name, rollouts(steps=1), method="grpo")
    assert [run.run_id for run in read_training_runs("a", " b, a,")] == ["a", "b"]
    with pytest.raises(RunError, match=r"no run 'c' in .*: the trained runs there are a, b\."):
        read_training_runs("a", "c")


def test_an_empty_run_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="^No rollouts in .*empty.*: run notebook 03 .* first"):
        read_training_run(tmp_path / "empty")


def test_a_run_in_progress_has_curves_without_a_log(tmp_path: Path) -> None:
    folder = written(tmp_path / "now", rollouts(steps=2))
    (folder / "rollouts" / "step-00000003.part").write_bytes(b"half")
    run = read_training_run(folder)
    assert run.rollouts["step"].max() == 2 and run.log.empty
    assert missing_measures([run], plots.HEALTH) == [*("entropy", "kl", "clipped", "tokens"), "cut"]
    assert plots.reward_curves([run]).axes
    with pytest.raises(plots.PlotError, match="^Run now has no value of entropy, kl"):
        plots.training_health([run])


def test_a_damaged_log_is_one_sentence(tmp_path: Path) -> None:
    folder = written(tmp_path / "bad", rollouts(steps=1))
    (folder / LOG_FILE).write_bytes(b"PAR1")
    with pytest.raises(RunError, match="Cannot read .*training_log.parquet .*: train this run"):
        read_training_run(folder)


def test_rollouts_of_an_older_version_are_drawn_or_refused_in_one_sentence(tmp_path: Path) -> None:
    plain = rollouts().drop(columns=["reward_format"])  # no temperatures, no finish reason either
    run = read_training_run(written(tmp_path / "old", plain))
    assert run.method == "old" and not run.has_temperatures
    assert "Format" not in words(plots.reward_curves([run]))
    with pytest.raises(plots.PlotError, match="scaled its advantages"):
        plots.temperatures([run])
    with pytest.raises(RunError, match="'older' lack the columns dataset, sample: another version"):
        read_training_run(written(tmp_path / "older", plain.drop(columns=["sample", "dataset"])))


def test_reward_curves_have_a_panel_per_component_that_was_measured() -> None:
    bare = plots.reward_curves([training()], window=2)
    assert [axis.get_title("left") for axis in bare.axes] == ["Total reward", "Accuracy", "Format"]
    assert {axis.get_xlabel() for axis in bare.axes} == {"optimiser step"}
    assert "n = 48 rollouts, mean of 2 steps" in words(bare)
    gaps = plots.reward_curves([training(rollouts=rollouts(reward_iou=np.nan))])
    assert "IoU" not in words(gaps)
    assert "IoU" in words(plots.reward_curves([training(rollouts=rollouts(reward_iou=0.5))]))


@pytest.mark.parametrize("domains", [("ct",), ("ct", "ecg"), tuple(DOMAINS)])
def test_each_domain_has_its_panel_and_its_colour(domains: tuple[str, ...]) -> None:
    figure = plots.reward_by([training(rollouts=rollouts(domains))])
    assert len(figure.axes) == len(domains)
    assert "CT (n = 24)" in words(figure)
    colours = {line.get_color() for axis in figure.axes for line in axis.lines}
    assert {PALETTE[name] for name in domains} <= colours
    labelled = [axis.get_xlabel() for axis in figure.axes]
    assert all(labelled[-3:]) and not any(labelled[:-3])


def test_panels_that_share_their_limits_cut_nothing_off() -> None:
    figure = plots.reward_by([training()])
    for axis in figure.axes:
        assert axis.get_ylim()[0] <= 0 and axis.get_ylim()[1] >= 1


def test_methods_are_lines_and_seeds_are_bands() -> None:
    worse = training("c", "grpo", rollouts=rollouts().assign(reward=0.0))
    other = training("b", seed=1, rollouts=rollouts().assign(reward=0.25))
    figure = plots.reward_curves([training("a"), other, worse])
    total = figure.axes[0]
    assert [line.get_label() for line in total.lines] == ["drpo", "grpo"]
    assert len(total.collections) == 1
    assert "band: lowest to highest of 2 runs" in words(figure)
    assert {"drpo", "grpo"} <= set(words(figure).splitlines())


def test_temperatures_are_drawn_by_domain_for_the_methods_that_have_them() -> None:
    runs = [training(rollouts=scaled(rollouts())), training("b", "grpo")]
    figure = plots.temperatures(runs)
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles[0] == "Domain temperature (drpo)" and len(titles) == 3
    assert {line.get_color() for line in figure.axes[0].lines} == {PALETTE["ct"], PALETTE["ecg"]}
    assert figure.axes[0].get_yscale() == "log"


@pytest.mark.parametrize("draw", DRAWN)
def test_one_step_is_drawn_as_points(draw: Any) -> None:
    log = pd.DataFrame({"step": [1], "entropy": [1.0]})
    figure = draw([training(rollouts=rollouts(steps=1), log=log)])
    assert any(line.get_marker() == "o" for axis in figure.axes for line in axis.lines)


@pytest.mark.parametrize("draw", DRAWN)
def test_figures_carry_their_own_white_ground(draw: Any) -> None:
    figure = draw([training()])
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert {axis.get_facecolor() for axis in figure.axes} == {(1.0, 1.0, 1.0, 1.0)}
