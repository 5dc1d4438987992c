"""One trace in full, beside its image with boxes or its ECG; several on a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from qoq_lib.domains import domain_order
from qoq_lib.evaluation.plots.ecg import ecg_strip
from qoq_lib.evaluation.plots.media import answer_regions, case_sheet
from qoq_lib.evaluation.plots.theme import PlotError
from qoq_lib.publishing.explore import Traces
from qoq_lib.publishing.loading import TracesError

_TOLD = {
    "domain": "domain",
    "dataset": "data set",
    "source_record": "source record",
    "question": "question",
    "answers": "true answer",
    "completion": "completion",
    "reasoning": "reasoning",
    "final_answer": "answer",
    "boxes": "boxes (pixels as seen)",
    "correct": "correct",
    "reward": "reward",
    "advantage": "advantage",
    "n_tokens": "tokens",
    "finish_reason": "ended by",
    "step": "step",
    "sample": "sample",
}


def trace_table(trace: Mapping[str, Any]) -> pd.DataFrame:
    """A trace part by part, in one column named by its question."""
    parts = {title: trace.get(name) for name, title in _TOLD.items() if name in trace}
    rewards = {name: value for name, value in trace.items() if name.startswith("reward_")}
    parts |= {
        f"reward: {name.removeprefix('reward_')}": value
        for name, value in rewards.items()
        if value is not None
    }
    boxes = trace.get("boxes")
    if boxes:
        parts[_TOLD["boxes"]] = [f"[{', '.join(f'{v:g}' for v in box)}]" for box in boxes]
    shown = {title: None if _is_empty(value) else value for title, value in parts.items()}
    return pd.DataFrame({trace["id"]: shown}).loc[list(shown)]


def group_table(traces: Traces, index: pd.DataFrame, position: int) -> pd.DataFrame:
    """The rollouts that were compared with the trace at ``position``, itself included."""
    one = index.loc[position]
    same = (index["id"] == one["id"]) & (index["step"] == one["step"])
    rows = [traces.read(place) for place in index.index[same]]
    names = [name for name in ("sample", "final_answer", "reward", "advantage") if name in rows[0]]
    table = pd.DataFrame([{name: row[name] for name in names} for row in rows])
    table["completion"] = [row["completion"] for row in rows]
    return table.set_index("sample").rename(columns={"final_answer": "answer"})


def trace_figures(traces: Traces, trace: Mapping[str, Any]) -> list[Figure]:
    """The image with the boxes of data and answer, and the ECG as on paper, as far as there are.

    Raises:
        PlotError: neither is to be had; the sentence says why.
    """
    case = traces.case(trace["id"])
    if case is None:
        raise PlotError(f"The image or ECG of {trace['id']} is not here: {_reference(trace)}.")
    row = as_seen(case, trace)
    figures = []
    if row["images"]:
        figures.append(answer_regions(row, row["regions"]))
    if row["ecg"] is not None:
        figures.append(ecg_strip(row))
    if not figures:
        raise PlotError(
            f"The image or ECG of {trace['id']} may not be shared by its source: "
            f"{_reference(trace)}."
        )
    return figures


def sheet(traces: Traces, positions: Sequence[int], title: str) -> Figure:
    """Several traces on one page, each beside its image or ECG.

    Raises:
        PlotError: none of them has an image or ECG here.
    """
    read = [traces.read(position) for position in positions]
    cases = {case["id"]: case for case in traces.cases_of([trace["id"] for trace in read])}
    shown = [trace for trace in read if _has_media(cases.get(trace["id"]))]
    if not shown:
        raise PlotError(f"{title}: their images and ECGs are not here, or may not be shared.")
    rows = [as_seen(cases[trace["id"]], trace) for trace in shown]
    table = pd.DataFrame(
        {
            "answers": [trace["answers"] for trace in shown],
            "labels": [trace["final_answer"] for trace in shown],
            "completion": [trace["completion"] for trace in shown],
        }
    )
    return case_sheet(rows, table, title)


def as_seen(case: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    """A case with its images at the size the model saw, ``boxes`` and the answer's ``regions``.

    Where that size is not known, the stored image is kept and no box is given, since none could be
    put in its place.
    """
    size = case["image_size"]
    images = [image.convert("RGB") for image in case["images"] or []]
    if not size:
        return {**case, "images": images, "boxes": None, "regions": []}
    shape = int(size[0]), int(size[1])
    images = [image.resize(shape, Image.Resampling.BICUBIC) for image in images]
    return {**case, "images": images, "regions": trace.get("boxes") or []}


def in_turns(index: pd.DataFrame, count: int, seed: int) -> list[int]:
    """Positions of some traces of an index, drawn at random, domains in turn."""
    mixed = index.sample(frac=1, random_state=seed)
    order = {name: place for place, name in enumerate(domain_order(list(index["domain"].unique())))}
    turn = mixed.groupby("domain", observed=True).cumcount().to_numpy()
    place = mixed["domain"].map(order).astype(int).to_numpy()
    return [int(mixed.index[n]) for n in np.lexsort((place, turn))[:count]]


def nth(order: Sequence[int], number: int) -> int:
    """The position at place ``number``; ``TracesError`` where there are fewer."""
    if not 0 <= number < len(order):
        raise TracesError(
            f"There is no trace {number} among {len(order):,}: give a number from 0 to "
            f"{len(order) - 1}."
        )
    return order[number]


def _has_media(case: Mapping[str, Any] | None) -> bool:
    return case is not None and bool(case["images"] or case["ecg"] is not None)


def _reference(trace: Mapping[str, Any]) -> str:
    refs = [*(trace.get("image_ref") or []), *filter(None, [trace.get("ecg_ref")])]
    record = f"it is record {trace.get('source_record') or trace['id']} of {trace['dataset']}"
    return f"{record}, SHA-256 {refs[0][:16]}…" if refs else record


def _is_empty(value: Any) -> bool:
    return value is None or isinstance(value, str | list) and not len(value)
