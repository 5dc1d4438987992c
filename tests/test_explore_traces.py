"""Traces found, counted and read: of a run, and of a published set."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from trace_runs import GROUP, STEPS, write_run

from qoq_lib.evaluation import plots
from qoq_lib.publishing.agreement import agreement_table, groups, overview
from qoq_lib.publishing.browser import TraceBrowser
from qoq_lib.publishing.explore import UNREADABLE, Traces, chosen, open_traces, trace_index
from qoq_lib.publishing.loading import TracesError
from qoq_lib.publishing.reading import (
    as_seen,
    group_table,
    in_turns,
    nth,
    sheet,
    trace_figures,
    trace_table,
)
from qoq_lib.publishing.traces import write_traces
from qoq_lib.runs import RunError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[Any, Any]) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "small", tiny)
    write_traces(run, run.parent / "published")
    return run


@pytest.fixture(params=["run", "published"])
def traces(request: pytest.FixtureRequest, run: Path) -> Traces:
    named = "" if request.param == "run" else str(run.parent / "published")
    return open_traces(run, named)


@pytest.fixture
def index(traces: Traces) -> pd.DataFrame:
    return trace_index(traces.rows)


def test_the_index_says_what_the_rows_say(traces: Traces, index: pd.DataFrame) -> None:
    assert len(index) == STEPS * 9 * GROUP == traces.rows.num_rows
    for place in (0, 3, len(index) - 1):
        row, line = traces.read(place), index.iloc[place]
        for name in ("id", "domain", "dataset", "step", "sample", "correct", "n_tokens"):
            assert line[name] == row[name]
        assert line["said"] == (", ".join(row["final_answer"]) or UNREADABLE)
        assert line["true"] == ", ".join(row["answers"])


def test_traces_are_chosen_by_all_that_the_page_offers(index: pd.DataFrame) -> None:
    assert set(chosen(index, domain="ecg")["dataset"]) == {"phantom_ecg"}
    assert len(chosen(index, dataset="phantom_ct", outcome="wrong")) == STEPS * GROUP // 2
    assert chosen(index, outcome="correct")["correct"].all()
    assert set(chosen(index, reward_from=0.5)["sample"]) == {0, 1}
    assert set(chosen(index, reward_to=0.5)["sample"]) == {2, 3}
    with pytest.raises(TracesError, match="No trace is of the domain 'ctt'"):
        chosen(index, domain="ctt")
    with pytest.raises(TracesError, match="No trace is left"):
        chosen(index, reward_from=2.0)


def test_counts_by_domain_add_up(index: pd.DataFrame) -> None:
    table = overview(index)
    assert list(table.index)[-1] == "All" and len(table) == 10
    assert table.loc["All", "traces"] == table["traces"][:-1].sum() == len(index)
    assert (table["correct"] == 0.5).all() and (table["cut"] == 0.25).all()


def test_agreement_is_of_whole_groups() -> None:
    def rollout(sample: int, said: str, correct: bool, step: int = 1) -> dict[str, Any]:
        told = {"id": "q", "domain": "ct", "dataset": "d", "step": step, "sample": sample}
        return told | {"said": said, "correct": correct}

    rows = [rollout(n, said, said == "a") for n, said in enumerate("babb")]
    rows += [rollout(n, said, said == "a") for n, said in enumerate("abab")]  # asked again
    rows += [rollout(n, "a", True, step=2) for n in range(4)]
    index = pd.DataFrame(rows).astype({"id": "category", "said": "category"})
    made = groups(index)
    assert list(made["agreement"]) == [0.75, 0.5, 1.0]
    assert list(made["majority"]) == [False, True, True]  # of a tie, what was said first
    assert list(made["correct"]) == [0.25, 0.5, 1.0] and made["any"].all()
    table = agreement_table(made)
    assert table.loc["All", "majority correct"] == pytest.approx(2 / 3)


def test_a_trace_is_read_beside_its_image_with_both_kinds_of_boxes(
    traces: Traces, index: pd.DataFrame
) -> None:
    marked = [
        place
        for place in chosen(index, outcome="correct").index
        if (traces.case(traces.read(place)["id"]) or {})["boxes"]
    ]
    trace = traces.read(marked[0])
    row = as_seen(traces.case(trace["id"]) or {}, trace)
    assert row["images"][0].size == (56, 56) and row["regions"] == [[4, 4, 20, 24]]
    (figure,) = trace_figures(traces, trace)
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said[0].startswith("marked in the data: ") and said[1] == "named by the model: 1"
    assert len(figure.axes[0].patches) == 1 + len(row["boxes"])
    table = trace_table(trace)
    assert table.loc["completion"].item() == trace["completion"]
    assert table.loc["boxes (pixels as seen)"].item() == ["[4, 4, 20, 24]"]


def test_an_ecg_is_read_on_squared_paper(traces: Traces, index: pd.DataFrame) -> None:
    trace = traces.read(chosen(index, domain="ecg").index[0])
    (figure,) = trace_figures(traces, trace)
    assert "25 mm/s" in "".join(text.get_text() for text in figure.texts)


def test_a_group_is_shown_whole(traces: Traces, index: pd.DataFrame) -> None:
    table = group_table(traces, index, 5)
    assert list(table.index) == [0, 1, 2, 3]
    assert table.loc[3, "completion"] == "I cannot say." and table.loc[3, "answer"] == []


def test_a_sheet_takes_domains_in_turn_and_the_same_for_the_same_seed(
    traces: Traces, index: pd.DataFrame
) -> None:
    order = in_turns(index, 9, seed=1)
    assert order == in_turns(index, 9, seed=1) != in_turns(index, 9, seed=2)
    assert index.loc[order, "domain"].nunique() == 9
    assert len(sheet(traces, order, "Nine").axes) == 18
    assert nth(order, 8) == order[8]
    with pytest.raises(TracesError, match="give a number from 0 to 8"):
        nth(order, 9)


def test_the_figures_count_every_trace(traces: Traces, index: pd.DataFrame) -> None:
    for figure in (plots.length_chart(index), plots.answer_chart(index)):
        assert len(figure.axes) == 9 and f"n = {len(index)}" in figure.get_suptitle()
    lengths = plots.length_chart(index).axes[0].patches
    assert sum(lengths[0].get_data().values) == pytest.approx(1)
    made = plots.agreement_chart(groups(index))
    shares = [sum(bar.get_height() for bar in axis.patches) for axis in made.axes]
    assert shares == pytest.approx([1.0] * 9)


def test_figures_without_what_they_show_say_so(index: pd.DataFrame) -> None:
    with pytest.raises(plots.PlotError, match="how many tokens"):
        plots.length_chart(index.drop(columns="n_tokens"))
    with pytest.raises(plots.PlotError, match="one rollout"):
        plots.agreement_chart(groups(index[index["sample"] == 0]))


def test_without_images_one_sentence_names_hash_and_record(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run / "rollouts", bare / "rollouts")
    traces = open_traces(bare)
    trace = traces.read(0)
    with pytest.raises(plots.PlotError, match="is not here: it is record .*, SHA-256 0000"):
        trace_figures(traces, trace)
    with pytest.raises(plots.PlotError, match="are not here, or may not be shared"):
        sheet(traces, [0, 1], "Two")


def test_an_image_that_may_not_be_shared_is_told_from_one_that_is_not_here(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = open_traces(run, str(run.parent / "published"))
    trace = traces.read(0)
    case = traces.case(trace["id"]) or {}
    hidden = {**case, "images": None, "ecg": None, "boxes": None}
    monkeypatch.setattr(Traces, "case", lambda *_: hidden)
    with pytest.raises(plots.PlotError, match="may not be shared by its source"):
        trace_figures(traces, trace)


def test_a_run_without_rollouts_is_one_sentence(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "predictions", tmp_path / "sft" / "predictions")
    with pytest.raises(RunError, match="its method does not sample"):
        open_traces(tmp_path / "sft")


def test_the_controls_choose_and_show(traces: Traces, index: pd.DataFrame) -> None:
    browser = TraceBrowser(traces, index)
    assert browser.count.value == f"{len(index)} traces"
    browser.domain.value, browser.outcome.value = "ecg", "wrong"
    assert browser.count.value == f"{STEPS * GROUP // 2} traces"
    browser.number.value = 3
    place = chosen(index, domain="ecg", outcome="wrong").index[3]
    assert browser.position == place
    browser.dataset.value = "phantom_ct"
    assert browser.count.value == "No trace is left after these filters: ask for less."
    browser.domain.value = "all"
    assert browser.count.value == f"{STEPS * GROUP // 2} traces"
    browser.reward.value = (0.5, 1.0)
    assert "No trace is left" in browser.count.value
