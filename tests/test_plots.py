"""Figures: the axes and words they carry, on inputs small, partial and odd."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from matplotlib.figure import Figure

from qoq_lib.data.example import FEATURES, SPLITS
from qoq_lib.data.phantom import make_phantom
from qoq_lib.domains import DOMAIN_NAMES, DOMAINS
from qoq_lib.evaluation import plots

plots.use_theme()


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    rows = make_phantom(200, seed=0)
    places = {
        name: [n for n, split in enumerate(rows["split"]) if split == name] for name in SPLITS
    }
    return DatasetDict({name: rows.select(chosen) for name, chosen in places.items()})


def only(data: DatasetDict, domain: str) -> DatasetDict:
    return DatasetDict(
        {
            name: rows.select([n for n, one in enumerate(rows["domain"]) if one == domain])
            for name, rows in data.items()
            if name != "align"
        }
    )


def words(figure: Figure) -> str:
    """Every text of a figure."""
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, dpi=50)
    return buffer.getvalue()


def test_the_contact_sheet_shows_every_domain_with_boxes(data: DatasetDict) -> None:
    figure = plots.contact_sheet(data, per_domain=4)
    titles = {DOMAINS[name].title for name in DOMAIN_NAMES}
    assert titles <= {axis.get_ylabel() for axis in figure.axes}
    assert len(figure.axes) == 8 * 4 + 2  # an ECG is two images wide
    assert any(axis.patches for axis in figure.axes)
    assert "melanoma" in words(figure)
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


def test_the_same_data_give_the_same_picture(data: DatasetDict) -> None:
    first, second, other = (plots.contact_sheet(data, 3, seed) for seed in (1, 1, 2))
    assert png(first) == png(second) != png(other)


@pytest.mark.parametrize("domain", ["ecg", "fundus"])
def test_one_domain_without_perception_questions_is_enough(data: DatasetDict, domain: str) -> None:
    part = only(data, domain)
    assert DOMAINS[domain].title in words(plots.contact_sheet(part))
    assert DOMAINS[domain].title in words(plots.class_chart(part))
    assert "align" not in words(plots.count_chart(part))


def test_the_count_charts_tell_n(data: DatasetDict) -> None:
    assert "(n = 200)" in words(plots.count_chart(data))
    chart = plots.class_chart(data)
    assert len(chart.axes) == 9
    assert sum(text.count("n = ") for text in words(chart).splitlines()) == 9
    assert "raised ST segment" not in words(chart)


def ecg_row(leads: list[str], **changes: Any) -> dict[str, Any]:
    signal = np.sin(np.linspace(0, 60, 1000))[None].repeat(len(leads), 0)
    row = {"id": "x/1", "ecg": signal, "ecg_leads": leads, "ecg_rate_hz": 100.0, "answers": ["a"]}
    return row | changes


def test_an_ecg_strip_draws_its_leads_in_clinical_order(data: DatasetDict) -> None:
    twelve = next(row for row in data["train"] if row["domain"] == "ecg")
    leads = list(plots.ecg.LEAD_ORDER)
    axis = plots.ecg_strip(twelve).axes[0]
    assert [text.get_text() for text in axis.texts] == [*leads, "II"]
    assert "25 mm/s · 10 mm/mV · 500 Hz" in words(plots.ecg_strip(twelve))
    backwards = plots.ecg_strip(ecg_row(leads[::-1])).axes[0]
    assert [text.get_text() for text in backwards.texts] == [*leads, "II"]


def test_an_ecg_strip_takes_other_leads_and_refuses_none() -> None:
    eight = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
    assert len(plots.ecg_strip(ecg_row(eight)).axes[0].texts) == 9
    assert len(plots.ecg_strip(ecg_row(["MLII"])).axes[0].texts) == 1
    with pytest.raises(plots.PlotError, match=r"^Row 'x/1' has no ECG"):
        plots.ecg_strip(ecg_row([], ecg=None))


def test_an_ecg_strip_is_to_scale_with_a_pulse_before_each_line() -> None:
    figure = plots.ecg_strip(ecg_row(list(plots.ecg.LEAD_ORDER)))
    axis = figure.axes[0]
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    figure.canvas.draw()
    box = axis.get_window_extent()
    millimetres = 25.4 / figure.dpi
    assert box.width * millimetres / (right - left) == pytest.approx(25)
    assert box.height * millimetres / (top - bottom) == pytest.approx(10)
    pulses = [np.asarray(line.get_ydata()) for line in axis.lines if max(line.get_xdata()) <= 0]
    assert [np.ptp(pulse) for pulse in pulses] == [1.0] * 4


def test_an_ecg_strip_cuts_no_wave_off_and_shows_ten_seconds() -> None:
    tall = ecg_row(["I"], ecg=2.6 * np.sin(np.linspace(0, 90, 1500))[None])
    axis = plots.ecg_strip(tall).axes[0]
    assert axis.get_ylim() == (-3.0, 3.0)
    assert axis.get_xlim()[1] == 10
    assert "first 10 s of 15 s" in words(plots.ecg_strip(tall))


def test_a_case_sheet_shows_image_answer_and_any_completion(data: DatasetDict) -> None:
    chosen = [data["test"][n] for n in (0, len(data["test"]) - 1)]
    frame = pd.DataFrame(
        {
            "answers": [row["answers"] for row in chosen],
            "labels": [(), tuple(chosen[1]["answers"])],
            "completion": ["$x_ \\boxed{ \x07 \u4f60 " + "w" * 400, "fine"],
        }
    )
    seen = [chosen[0] | {"regions": None}, chosen[1] | {"regions": [(1, 1, 9, 9)]}]
    figure = plots.case_sheet(seen, frame, "Cases")
    assert png(figure)
    assert "no valid answer" in words(figure) and f"true: {chosen[0]['answers'][0]}" in words(
        figure
    )
    with pytest.raises(plots.PlotError, match="There is no case"):
        plots.case_sheet([], frame.head(0), "Cases")


def test_a_large_image_keeps_its_own_pixel_coordinates() -> None:
    from PIL import Image

    image = Image.new("L", (1000, 400))
    row = {"images": [image], "boxes": [[10, 20, 900, 300]], "ecg": None}
    axis = Figure().subplots()
    plots.media.show_media(axis, row)
    assert axis.images[0].get_extent() == [-0.5, 999.5, 399.5, -0.5]
    assert axis.images[0].get_array().shape[:2] == (154, 384)
    assert axis.patches[0].get_bbox().bounds == (9.5, 19.5, 890, 280)


def test_regions_of_data_and_answer_stand_on_the_image_in_two_colours() -> None:
    from PIL import Image

    row = {"id": "x/1", "images": [Image.new("L", (100, 80))], "answers": ["a"], "ecg": None}
    figure = plots.answer_regions(row | {"boxes": [[10, 20, 30, 40]]}, [(50, 60, 70, 120)])
    marked, named = figure.axes[0].patches
    assert marked.get_bbox().bounds == (9.5, 19.5, 20, 20)
    assert named.get_bbox().bounds == (49.5, 59.5, 20, 60)
    assert marked.get_edgecolor() != named.get_edgecolor()
    assert figure.axes[0].get_ylim() == (79.5, -0.5)
    assert "named by the model: none" in words(plots.answer_regions(row | {"boxes": None}, []))
    with pytest.raises(plots.PlotError, match=r"^Row 'x/1' has no image"):
        plots.answer_regions(row | {"images": []}, [])


def test_rows_with_only_the_schema_of_a_split_are_counted() -> None:
    row = next(iter(make_phantom(200, seed=0)))
    one = Dataset.from_list([row | {"split": "test"}], features=FEATURES)
    assert "(n = 1)" in words(plots.count_chart(DatasetDict({"test": one})))
