"""A run's traces as a data set, read back with the genuine clients."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from trace_runs import GROUP, STEPS, change, copied, write_run

from qoq_lib.data.assemble import load_assembled
from qoq_lib.model.pixels import convert_boxes
from qoq_lib.publishing import traces as writing
from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.publishing.scan import scan
from qoq_lib.publishing.trace_set import TraceSet, read_trace_set
from qoq_lib.publishing.traces import write_traces
from qoq_lib.runs import RunError
from qoq_lib.training.drpo import PRESETS, DomainStatistics, compute_advantages

ROLLOUTS = STEPS * 9 * GROUP
PHANTOM = {
    f"phantom_{name}" for name in ("chest_xray", "mammography", "dermoscopy", "ct", "fundus")
} | {f"phantom_{name}" for name in ("ultrasound", "mri", "pathology", "ecg")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[Any, Any]) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "small", tiny)


@pytest.fixture(scope="module")
def written(run: Path) -> tuple[Path, TraceSet]:
    out = run.parent / "traces"
    return out, write_traces(run, out)


@pytest.fixture
def read(written: tuple[Path, TraceSet], tmp_path: Path) -> Any:
    """``load_dataset`` as any user calls it, with a cache of its own."""

    def load(config: str, **how: Any) -> Any:
        return load_dataset(str(written[0]), config, cache_dir=str(tmp_path), **how)

    return load


def test_every_configuration_loads_typed(read: Any, written: tuple[Path, TraceSet]) -> None:
    counts = {
        config: {split: rows.num_rows for split, rows in read(config).items()}
        for config in written[1].configs
    }
    tests = 2 * len(load_assembled(written[0].parent / "small" / "data")["test"])
    assert counts["default"] == {"train": 9}  # each right and whole answer to a question once
    assert counts["all"] == {"train": ROLLOUTS, "test": tests}
    assert counts["rl_steps"] == {"train": ROLLOUTS // GROUP}
    for config, features in written[1].features.items():
        assert read(config)["train"].features == features


def test_streaming_and_pandas_see_the_same_rows(read: Any, written: tuple[Path, TraceSet]) -> None:
    whole = read("all", split="train")
    streamed = list(read("all", split="train", streaming=True))
    assert streamed == list(whole)
    frame = pd.read_parquet(written[0] / "data" / "all", filters=[("step", "==", 2)])
    assert len(frame) == ROLLOUTS // STEPS and set(frame["run_id"]) == {"small"}
    assert frame["correct"].dtype == bool and frame["reward"].dtype == np.float64


def test_a_trace_says_where_it_comes_from_and_what_it_says(read: Any) -> None:
    row = next(row for row in read("all")["train"] if row["sample"] == 0)
    assert row["model"] == "tiny" and row["run_id"] == "small" and row["seed"] == 7
    assert row["id"].endswith(row["source_record"].rsplit("/", 1)[1])
    assert row["final_answer"] == row["answers"] and row["correct"]
    assert row["boxes"] == [[4, 4, 20, 24]] and row["reasoning"].startswith("Look.")
    assert row["model_revision"] is None and row["reward_iou"] is None  # missing is null


def test_answers_on_held_out_patients_are_a_split_of_their_own(read: Any) -> None:
    rows = read("all")["test"]
    assert set(rows["model"]) == {"aligned", "trained"}  # not what somebody else answered
    assert set(rows["step"]) == {None} and set(rows["reward"]) == {None}
    assert all(row["correct"] for row in rows if row["model"] == "trained")
    assert all(row["question"] and row["options"] for row in rows)
    assert not set(rows["id"]) & set(read("all")["train"]["id"])


def test_chats_are_of_correct_whole_and_well_formed_answers(read: Any) -> None:
    for row in read("default")["train"]:
        asked, answered = row["messages"]
        assert (asked["role"], answered["role"]) == ("user", "assistant")
        assert "Options:" in asked["content"] and "Answer in \\boxed{}" in asked["content"]
        assert answered["content"].endswith(f"\\boxed{{{row['answers'][0]}}}")
        assert row["sample"] == 0


def test_a_chat_holds_the_report_that_the_question_came_with(run: Path, read: Any) -> None:
    reports = {row["id"]: row["report"] for row in load_assembled(run / "data")["train"]}
    asked = {row["id"]: row["messages"][0]["content"] for row in read("default")["train"]}
    with_report = {name: text for name, text in asked.items() if reports[name]}
    assert with_report
    for name, text in with_report.items():
        assert text.startswith(f"Report: {reports[name]}")


def test_groups_can_be_put_to_drpo_again(read: Any) -> None:
    groups = read("rl_steps", split="train").to_pandas()
    assert list(groups["step"]) == sorted(groups["step"])
    rewards = np.stack(groups["reward"])
    config = PRESETS["recommended"]
    made = compute_advantages(rewards, list(groups["domain"]), config, DomainStatistics(config))
    assert made.advantages.shape == (ROLLOUTS // GROUP, GROUP)
    first = groups.iloc[0]
    assert list(first["sample"]) == [0, 1, 2, 3] and first["completion"][3] == "I cannot say."
    assert (first["weight"], first["cluster"]) == (0.5, 2)


def test_a_question_that_a_step_asks_twice_makes_two_groups(run: Path, tmp_path: Path) -> None:
    run = copied(run, tmp_path / "twice")
    path = run / "rollouts" / "step-00000001.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)
    write_traces(run, tmp_path / "out")
    groups = pd.read_parquet(tmp_path / "out" / "data" / "rl_steps")
    assert [len(one) for one in groups["sample"]] == [GROUP] * (9 * (STEPS + 1))


def test_cases_show_the_image_and_its_boxes_as_the_model_saw_it(
    run: Path, read: Any, tiny: tuple[Any, Any]
) -> None:
    rows = {row["id"]: row for row in load_assembled(run / "data")["train"]}
    cases = [case for case in read("cases")["train"] if case["id"] in rows]
    assert {case["domain"] for case in cases} == {row["domain"] for row in rows.values()}
    for case in cases:
        row = rows[case["id"]]
        if row["domain"] == "ecg":
            assert np.array_equal(case["ecg"], row["ecg"]) and case["ecg_rate_hz"] == 500
            continue
        assert case["images"][0].tobytes() == row["images"][0].tobytes()
        assert case["image_size"] == [56, 56] and len(case["image_ref"][0]) == 64
        if row["boxes"]:
            size = row["images"][0].size
            how = {"source": "original", "target": "model"}
            seen = convert_boxes(row["boxes"], size, tiny[1].image_processor, **how)
            assert np.allclose(case["boxes"], seen)


def test_shards_are_named_as_the_hub_knows_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(writing.ROWS_PER_GROUP, "all", 10)
    monkeypatch.setitem(writing.ROWS_PER_SHARD, "all", 50)
    made = write_traces(run, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "data" / "all").glob("train-*"))
    assert names == [f"train-{n:05d}-of-00003.parquet" for n in range(3)]
    rows = load_dataset(str(tmp_path / "out"), "all", cache_dir=str(tmp_path / "c"))["train"]
    assert rows.num_rows == ROLLOUTS == made.configs["all"]["train"].rows


def test_the_set_is_read_back_and_the_same_run_gives_the_same_bytes(
    run: Path, written: tuple[Path, TraceSet], tmp_path: Path
) -> None:
    assert read_trace_set(written[0]) == written[1]
    assert write_traces(run, tmp_path / "out").files == written[1].files
    assert set(written[1].datasets) == PHANTOM and not written[1].left_out
    assert scan(written[0]) == []


def test_writing_again_replaces_a_set_and_nothing_else(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_traces(run, out)
    (out / "data" / "all" / "old.parquet").write_bytes(b"")
    write_traces(run, out)
    assert not (out / "data" / "all" / "old.parquet").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ReleaseError, match="was not built here"):
        write_traces(run, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_an_interrupted_write_leaves_the_old_set(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    before = write_traces(run, out)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "check_clean", stop)
    with pytest.raises(KeyboardInterrupt):
        write_traces(run, out)
    assert read_trace_set(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_without_data_or_checkpoint_gives_traces_and_says_what_is_missing(
    run: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run / "rollouts", bare / "rollouts")
    made = write_traces(bare, tmp_path / "out")
    assert "cases" not in made.configs and "data folder is gone" in made.notes[0]
    shutil.copytree(run / "data", bare / "data")
    made = write_traces(bare, tmp_path / "out")
    assert "no checkpoint" in made.notes[0]
    assert pd.read_parquet(tmp_path / "out" / "data" / "cases")["boxes"].isna().all()


def test_a_run_that_does_not_sample_gives_its_answers_alone(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "sft"
    shutil.copytree(run / "predictions", bare / "predictions")
    made = write_traces(bare, tmp_path / "out")
    assert {name: list(splits) for name, splits in made.configs.items()} == {"all": ["test"]}


def test_rollouts_of_an_older_version_are_filled_with_nulls_or_refused(
    run: Path, tmp_path: Path
) -> None:
    old = copied(run, tmp_path / "old")
    for path in (old / "rollouts").glob("*.parquet"):
        pd.read_parquet(path).drop(columns=["n_tokens", "image_ref"]).to_parquet(path)
    made = write_traces(old, tmp_path / "out")
    assert "Not written by this run's version: image_ref, n_tokens." in made.notes
    for path in (old / "rollouts").glob("*.parquet"):
        pd.read_parquet(path).drop(columns=["completion"]).to_parquet(path)
    with pytest.raises(RunError, match="lack the columns completion"):
        write_traces(old, tmp_path / "out")


def test_no_traces_and_damaged_ones_are_one_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="There are no traces in"):
        write_traces(tmp_path / "nothing", tmp_path / "out")
    broken = copied(run, tmp_path / "broken")
    next((broken / "rollouts").glob("*.parquet")).write_bytes(b"PAR1 no")
    with pytest.raises(RunError, match="cannot be read"):
        write_traces(broken, tmp_path / "out")


def test_a_run_whose_answers_are_all_wrong_has_no_chats_and_says_so(
    run: Path, tmp_path: Path
) -> None:
    poor = copied(run, tmp_path / "poor")
    change(poor, correct=False)
    made = write_traces(poor, tmp_path / "out")
    assert list(made.configs) == ["all", "rl_steps", "cases"]
    assert "No answer in training was correct" in made.notes[-1]
    assert read_trace_set(tmp_path / "out") == made


def test_nothing_left_is_no_trace_set(run: Path, tmp_path: Path) -> None:
    told = copied(run, tmp_path / "told")
    shutil.rmtree(told / "predictions")
    change(told, completion="Her MRN is 00412345.")
    with pytest.raises(ReleaseError, match=f"is left to write: {ROLLOUTS} rows were left out"):
        write_traces(told, tmp_path / "out")
    assert not (tmp_path / "out").exists()
