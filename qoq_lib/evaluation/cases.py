"""The cases of a test that are worth looking at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from qoq_lib.answers import reasoning
from qoq_lib.data.assemble import AssemblyError, load_assembled
from qoq_lib.domains import DOMAINS
from qoq_lib.evaluation.metrics import answered
from qoq_lib.evaluation.metrics.checking import column
from qoq_lib.evaluation.plots.media import case_sheet
from qoq_lib.evaluation.plots.theme import PlotError
from qoq_lib.evaluation.report import Predictions


def cases(predictions: Predictions, count: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The best and the worst cases of the last model: right ones and wrong ones.

    Cases on which the model before it answered the other way come first (what training won, what
    it lost), then those with the most overlap with the lesion (or the least); and every domain has
    its turn before one has its second.

    Returns:
        Two tables of up to ``count`` rows, columns as ``metrics.answered``.
    """
    after, *earlier = [answered(table) for table in reversed(list(predictions.values()))]
    before = earlier[0].set_index("id")["exact_match"] if earlier else pd.Series(dtype=float)
    after = after.assign(changed=after["exact_match"] != after["id"].map(before))
    right = after["exact_match"] == 1
    return _in_turns(after[right], count, best=True), _in_turns(after[~right], count, best=False)


def _in_turns(rows: pd.DataFrame, count: int, best: bool) -> pd.DataFrame:
    order = {name: number for number, name in enumerate(DOMAINS)}
    overlap = rows["box_iou"].fillna(rows["mask_iou"])
    rows = rows.assign(overlap=overlap if best else -overlap, place=rows["domain"].map(order))
    rows = rows.sort_values(["changed", "overlap"], ascending=False, kind="stable")
    rows = rows.assign(turn=rows.groupby("domain").cumcount())
    chosen = rows.sort_values(["turn", "place"], kind="stable").head(count)
    extra = ["changed", "turn", "place", "overlap"]
    return chosen.drop(columns=extra).reset_index(drop=True)


def draw_cases(data: Path, chosen: pd.DataFrame, title: str) -> Figure:
    """``plots.case_sheet`` of cases, with images and ECGs from the run's assembled ``data``.

    Raises:
        PlotError: there is no case, or the data are gone or others: a sentence for the page.
    """
    if chosen.empty:
        raise PlotError(f"{title}: there are none.")
    try:
        test = load_assembled(data)["test"]
    except AssemblyError as error:
        raise PlotError(f"{title}: their images cannot be shown. {error}") from error
    place = {name: number for number, name in enumerate(test["id"])}
    if unknown := [name for name in chosen["id"] if name not in place]:
        raise PlotError(
            f"{title}: their images cannot be shown, as the run's data have no test question "
            f"{unknown[0]!r}; they were assembled anew since."
        )
    rows = [test[place[name]] for name in chosen["id"]]
    return case_sheet(as_seen(rows, chosen), chosen, title)


def as_seen(rows: Sequence[Mapping[str, Any]], chosen: pd.DataFrame) -> list[dict[str, Any]]:
    """Assembled rows at the size and with the boxes of the predictions table.

    The boxes in a completion are in the pixels of the image as the model saw it, which may not be
    those of the stored image. Predictions of an older schema do not know that size: then the stored
    image and its own boxes stay, and the completion's are left out (``regions`` is ``None``).
    """
    seen = []
    told = zip(
        chosen["regions"], column(chosen, "boxes"), column(chosen, "image_size"), strict=True
    )
    for row, (regions, boxes, size) in zip(rows, told, strict=True):
        if size is None:
            seen.append({**row, "regions": None})
            continue
        shape = int(size[0]), int(size[1])
        images = [im.convert("RGB").resize(shape, Image.Resampling.BICUBIC) for im in row["images"]]
        seen.append({**row, "images": images, "boxes": boxes, "regions": regions})
    return seen


def trace_table(chosen: pd.DataFrame) -> pd.DataFrame:
    """The whole of what was said in each case: answer, boxes, reasoning and completion."""
    table = chosen.set_index("id")
    shown = table[["domain", "answers", "labels", "regions", "completion"]].copy()
    shown["regions"] = [[f"[{', '.join(f'{v:g}' for v in box)}]" for box in boxes] or None
                        for boxes in shown["regions"]]  # fmt: skip
    shown["labels"] = [labels or None for labels in shown["labels"]]
    thoughts = [reasoning(text) or None for text in table["completion"]]
    if any(thoughts):
        shown.insert(4, "reasoning", thoughts)
    return shown.rename(columns={"labels": "answered", "regions": "boxes drawn"})
