"""Figures of a test: models beside the floors, subgroups, confusions, calibration, overlap."""

import re

import numpy as np
import pytest
from fictions import joined, predictions, scores
from matplotlib.figure import Figure
from matplotlib.text import Text

from qoq_lib.evaluation import plots
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


def test_overlaps_are_drawn_or_said_in_a_sentence() -> None:
    plain = predictions(("ct",)).assign(boxes=[[[0.0, 0.0, 4.0, 4.0]]] * 8)
    said = '```json\n[{"bbox_2d": [0, 0, 4, 2], "label": "x"}]\n```' + plain["completion"]
    drawn = plain.assign(completion=said)
    figure = plots.overlap_chart({"aligned": plain, "trained": drawn})
    assert "CT\nmean 0.50, n = 8" in words(figure) and "filled: trained)" in words(figure)
    many = joined([drawn, plain]).assign(patient_id=[str(number) for number in range(16)])
    titles = words(plots.overlap_chart({"trained": many}))
    low, high = map(float, re.search(r"mean 0\.25 \[(.+), (.+)\], n = 16", titles).groups())
    assert 0 < low < 0.25 < high < 0.5
    both = plots.overlap_chart({"aligned": drawn, "trained": drawn})
    assert "line: aligned" in words(both)
    with pytest.raises(plots.PlotError, match="None of the 8 completions of the trained model"):
        plots.overlap_chart({"trained": plain})
    with pytest.raises(plots.PlotError, match="hold no true boxes"):
        plots.overlap_chart({"trained": predictions(("ct",))})


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
