"""The cases of notebook 05: their order, what the model saw of them, and their traces."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from fictions import predictions
from matplotlib.text import Text

from qoq_lib.data.assemble import assemble, load_assembled
from qoq_lib.evaluation.cases import as_seen, cases, draw_cases, trace_table
from qoq_lib.evaluation.metrics import answered
from qoq_lib.evaluation.plots import PlotError
from qoq_lib.evaluation.predict import row_facts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "data"
    assemble("phantom", folder, rows=200)
    return folder


def asked(rows: Dataset, size: tuple[int, int] = (56, 56)) -> pd.DataFrame:
    """Right answers to the rows, each with one box, as a model that saw images of ``size``."""
    table = pd.DataFrame([row_facts(row) for row in rows])
    box = '```json\n[{"bbox_2d": [1, 2, 30, 40], "label": "x"}]\n```'
    said = [f"<think>Hm.\n{box}</think>\\boxed{{{names[0]}}}" for names in table["answers"]]
    sizes = [None if one is None else list(size) for one in table["image_size"]]
    return table.assign(completion=said, image_size=sizes)


def test_cases_prefer_what_changed_and_take_domains_in_turn() -> None:
    before, after = predictions(right=0.5), predictions(right=0.9)
    best, worst = cases({"aligned": before, "trained": after}, count=4)
    assert best["domain"].tolist() == ["ct", "ecg", "ct", "ecg"]
    assert best["id"].iloc[0] == "ct/4"  # the first that only training got right
    assert not worst["exact_match"].any()
    alone, none = cases({"trained": predictions(right=1.0)})
    assert len(alone) == 6 and none.empty


def test_the_better_located_of_right_cases_comes_first() -> None:
    rows = predictions(("ct",)).assign(boxes=[[[0.0, 0.0, 4.0, 4.0]]] * 8)
    heights = [1, 3, 4, 2, 1, 1, 1, 1]
    rows["completion"] = [
        f'```json\n[{{"bbox_2d": [0, 0, 4, {height}], "label": "x"}}]\n```{said}'
        for height, said in zip(heights, rows["completion"], strict=True)
    ]
    best, _ = cases({"trained": rows}, count=3)
    assert best["id"].tolist() == ["ct/2", "ct/1", "ct/3"]


def test_a_case_is_shown_at_the_size_that_the_model_saw(data: Path) -> None:
    rows = load_assembled(data)["test"]
    imaged = next(row for row in rows if row["images"] and row["boxes"])
    (seen,) = as_seen([imaged], answered(asked([imaged], (56, 84))))
    assert seen["images"][0].size == (56, 84) and seen["regions"] == ((1, 2, 30, 40),)
    older = answered(asked([imaged])).drop(columns=["image_size", "boxes"])
    (stored,) = as_seen([imaged], older)
    assert stored["images"] == imaged["images"] and stored["regions"] is None
    assert stored["boxes"] == imaged["boxes"]


def test_cases_of_every_modality_are_drawn_with_both_kinds_of_boxes(
    data: Path, tmp_path: Path
) -> None:
    rows = load_assembled(data)["test"]
    asked(rows).to_parquet(tmp_path / "trained.parquet")  # lists come back as arrays
    best, worst = cases({"trained": pd.read_parquet(tmp_path / "trained.parquet")}, count=9)
    figure = draw_cases(data, best, "Right answers")
    text = "\n".join(one.get_text() for one in figure.findobj(Text))
    assert "Chest X-ray" in text and "ECG" in text and "drawn by the model" in text
    assert max(len(axis.patches) for axis in figure.axes) >= 2
    with pytest.raises(PlotError, match="^Wrong answers: there are none"):
        draw_cases(data, worst, "Wrong answers")
    with pytest.raises(PlotError, match="images cannot be shown"):
        draw_cases(tmp_path / "nowhere", best, "Right answers")
    with pytest.raises(PlotError, match="have no test question 'x/1'; they were assembled anew"):
        draw_cases(data, best.assign(id="x/1"), "Right answers")


def test_a_trace_is_whole(data: Path) -> None:
    table = answered(asked(load_assembled(data)["test"].select(range(3))))
    shown = trace_table(table)
    assert shown["completion"].tolist() == table["completion"].tolist()
    assert shown["reasoning"].str.startswith("Hm.").all()
    assert shown["boxes drawn"].iloc[0] == ["[1, 2, 30, 40]"]
    bare = trace_table(answered(predictions(right=0.0)))
    assert "reasoning" not in bare and bare["answered"].isna().all()
    assert np.all(bare["boxes drawn"].isna())
