"""The boxes of a study: mean IoU of the arms beside that of the start they share."""

import pandas as pd

from qoq_lib.evaluation.study.comparing import Tables
from qoq_lib.evaluation.study.scoring import OVERALL
from qoq_lib.evaluation.study.statistics import Interval, mean_interval
from qoq_lib.evaluation.study.wording import (
    compared_row,
    floor_text,
    interval_text,
    markdown,
    overall_runs,
    questions_text,
)


def times_the_start(row: pd.Series) -> Interval:
    """The ratio of IoUs of a row of ``comparison_table`` whose baseline is the untrained start."""
    mean, low, high = (1 + row[name] / 100 for name in ("gain_pct", "gain_low", "gain_high"))
    return Interval(mean, low, high, int(row["seeds"]))


def boxes_table(tables: Tables) -> pd.DataFrame:
    """A row per arm and kind of answers: IoU, its ratio to the start's, pointing.

    Empty where the study's answers draw no boxes.
    """
    lines = []
    for (arm, decoding), own in overall_runs(tables.results):
        scores = {metric: part["value"].to_numpy() for metric, part in own.groupby("metric")}
        if "box_iou" in scores:
            asked = {"arm": arm, "baseline": "untrained", "decoding": decoding, "domain": OVERALL}
            row = compared_row(tables.comparison, "box_iou", **asked)
            ratio = "–" if row is None else interval_text(times_the_start(row), digits=1)
            lines.append(
                {
                    "arm": arm,
                    "answers": decoding,
                    "IoU": interval_text(mean_interval(scores["box_iou"])),
                    "times the start's": ratio,
                    "pointing": interval_text(mean_interval(scores["pointing"])),
                }
            )
    return pd.DataFrame(lines).set_index("arm") if lines else pd.DataFrame()


def boxes_section(tables: Tables) -> list[str]:
    """The part of the page on boxes; nothing where the study's answers draw none."""
    table = boxes_table(tables)
    if table.empty:
        return []
    questions = questions_text(tables.results, "box_iou")
    note = _NOTE.format(questions=questions, floor=floor_text(tables.results, "floor_constant_box"))
    return ["## IoU by arm", markdown(table), note]


_NOTE = (
    "IoU is that of the answer's boxes matched one to one with the lesions, over the {questions} "
    "test questions with lesions: mean of a domain's questions, then over domains. An answer "
    "without a box counts as 0, and one box among several lesions as its overlap with one of them "
    "divided by their number; a box where there is no lesion is not counted. *Pointing* is the "
    "share of answers whose box has its middle in a lesion. The start, `untrained`, is the aligned "
    "model: it was taught how a box is written with boxes of one step of the coordinates, drawn "
    "evenly over every image with a lesion or without, and never where a lesion lies or how large "
    "it is. Its IoU, and with it the ratio, depends on that choice. The median training box of "
    "each domain, drawn for all patients alike, reaches {floor}, mean over seeds "
    "[95 % interval]."
)
