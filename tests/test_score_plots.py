"""Figures of a test: models beside the floors, subgroups, confusions, calibration, overlap."""

import io

import numpy as np
import pandas as pd
import pytest
from fictions import joined, predictions, scores
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from qoq_lib.evaluation import plots, report
from qoq_lib.evaluation.metrics import answered, evaluate
from qoq_lib.evaluation.plots.answers import confusion_shares

plots.use_theme()


def words(figure: Figure) -> str:
    """Every text of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_score_chart_has_a_line_per_domain_with_n_models_and_floors() -> None:
    figure = plots.score_chart(scores(aligned=0.5, trained=1.0))
    (axis,) = figure.axes
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ["CT  (n = 8)", "ECG  (n = 10)", "Overall  (n = 18)"]
    assert axis.get_xlabel() == "macro-F1"
    assert {"aligned", "trained"} <= set(words(figure).splitlines())
    points = [
        dots.get_offsets()[0].tolist() for dots in axis.collections if len(dots.get_offsets())
    ]
    assert [x for x, _ in points[1::2]] == [1.0, 1.0, 1.0]  # trained
    assert axis.patches[0].get_width() == pytest.approx(2 / 5)  # the floor of CT's four classes


def test_the_chart_of_data_sets_is_for_domains_of_several() -> None:
    with pytest.raises(plots.PlotError, match="Every domain has one data set"):
        plots.score_chart(scores(trained=1.0), by_set=True)
    two = joined([predictions(("ct",)), predictions(("ct",)).assign(dataset="other")])
    figure = plots.score_chart({"trained": evaluate(two)}, by_set=True)
    assert "CT: other  (n = 8)" in words(figure) and "CT: set_ct  (n = 8)" in words(figure)


def test_subgroups_stand_beside_the_whole_with_their_n() -> None:
    rows = predictions(("ct", "ecg"), right=0.5)
    rows = rows.assign(sex=["F", "M"] * 9, age_years=50.0)
    figure = plots.subgroup_chart(evaluate(rows))
    assert [axis.get_title("left") for axis in figure.axes] == ["By sex", "By age"]
    assert "F\nn = 9" in words(figure) and "40-59\nn = 18" in words(figure)
    with pytest.raises(plots.PlotError, match="neither sex nor age"):
        plots.subgroup_chart(evaluate(predictions()))


def test_without_options_to_choose_from_one_sentence_stands_for_a_figure() -> None:
    rows = predictions(("ct",), right=0.5).assign(sex=["F", "M"] * 4)
    where = rows.assign(options=[["lung"]] * 8, answers=[["lung"]] * 8)
    found = evaluate(where)
    for by_set in (False, True):
        with pytest.raises(plots.PlotError, match="^No question has options to choose from"):
            plots.score_chart({"trained": found}, by_set)
    with pytest.raises(plots.PlotError, match="^The questions tell no macro-F1"):
        plots.subgroup_chart(found)
    mixed = joined([rows.assign(sex="F"), where.assign(sex="M", dataset="where")])
    assert "M\nn = 0" in words(plots.subgroup_chart(evaluate(mixed)))
    assert "CT  (n = 8)" in words(plots.score_chart({"trained": evaluate(mixed)}))


def test_calibration_has_a_panel_per_domain_or_a_sentence() -> None:
    rows = predictions(("ct", "ecg"))
    odds = [
        np.log([0.6] + [0.4 / (len(names) - 1)] * (len(names) - 1)) for names in rows["options"]
    ]
    figure = plots.reliability(rows.assign(option_logprobs=odds))
    assert "CT (n = 8)" in words(figure) and "ECG (n = 10)" in words(figure)
    x, y = figure.axes[0].collections[0].get_offsets()[0]
    assert (x, y) == (pytest.approx(0.6), 0.25)  # the first of four options, in turn
    with pytest.raises(plots.PlotError, match="hold no option_logprobs"):
        plots.reliability(rows)


def overlaps(**predictions: pd.DataFrame) -> str:
    """Every text of the figure of overlaps."""
    found = {name: evaluate(table) for name, table in predictions.items()}
    return words(plots.overlap_chart(predictions, found))


def boxed(rows: pd.DataFrame, height: int) -> pd.DataFrame:
    """Predictions that draw a box of 4 x ``height`` pixels."""
    said = f'```json\n[{{"bbox_2d": [0, 0, 4, {height}], "label": "x"}}]\n```'
    return rows.assign(completion=said + rows["completion"])


def test_overlaps_are_drawn_or_said_in_a_sentence() -> None:
    plain = predictions(("ct",)).assign(boxes=[[[0.0, 0.0, 4.0, 4.0]]] * 8)
    drawn = boxed(plain, 2)
    told = overlaps(aligned=plain, trained=drawn)
    assert "CT\nbox IoU 0.500 [–], n = 8" in told and "filled: trained)" in told
    assert "line: aligned" in overlaps(aligned=drawn, trained=drawn)
    with pytest.raises(plots.PlotError, match="None of the 8 completions of the trained model"):
        overlaps(trained=plain)
    with pytest.raises(plots.PlotError, match="hold neither true boxes nor masks"):
        overlaps(trained=predictions(("ct",)))


def test_the_overlap_told_is_the_score_of_the_tables() -> None:
    rows = joined([predictions(("ct",))] * 4).assign(boxes=[[[0.0, 0.0, 4.0, 4.0]]] * 32)
    rows["patient_id"] = rows["id"]
    both = pd.concat([boxed(rows.tail(24), 4), boxed(rows.head(8), 1).assign(dataset="small")])
    found = evaluate(both)["domains"]["ct"]
    assert found["box_iou"] == pytest.approx((1 + 1 / 4) / 2)
    assert f"box IoU {report.told(found, 'box_iou')}, n = 32" in overlaps(trained=both)


def test_a_domain_with_masks_alone_is_drawn_too() -> None:
    pixels, stored = np.zeros((8, 8), np.uint8), io.BytesIO()
    pixels[:4, :4] = 255
    Image.fromarray(pixels).save(stored, "PNG")
    masked = boxed(predictions(("ct",)), 2).assign(mask=[stored.getvalue()] * 8)
    with_boxes = boxed(predictions(("ecg",)), 4).assign(boxes=[[[0.0, 0.0, 4.0, 4.0]]] * 10)
    told = overlaps(trained=pd.concat([masked, with_boxes]))
    assert "CT\nmask IoU 0.500 [–], n = 8" in told and "ECG\nbox IoU 1.000" in told


def test_confusion_counts_answers_of_each_true_label() -> None:
    rows = predictions(("ct",), right=0.5)
    shares = confusion_shares(answered(rows))
    assert list(shares.columns) == [*shares.index, "none"]
    assert (np.diag(shares) == 0.5).all() and (shares["none"] == 0.5).all()
    figure = plots.confusion(rows)
    assert len(figure.axes) == 1 and "CT (n = 8)" in words(figure)


def test_confusion_gathers_rare_labels_and_names_repeated_domains() -> None:
    labels = [f"label {n}" for n in range(12)]
    rows = joined([predictions(("ct",))] * 2)
    rows["dataset"] = ["a"] * 8 + ["b"] * 8
    rows["options"] = [labels] * 16
    rows["answers"] = [[labels[n % 12]] for n in range(16)]
    rows["completion"] = "\\boxed{label 11}"
    shares = confusion_shares(answered(rows))
    assert len(shares) == 8 and (shares["other"] == 1).all()
    assert "CT: a (n = 8)" in words(plots.confusion(rows))
