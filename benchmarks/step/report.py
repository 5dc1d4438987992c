"""What was measured as figures, as a table, and as a section of ``docs/gpu_results.md``.

python benchmarks/step/report.py result.json     # adds a result measured elsewhere to the page
"""

from pathlib import Path
from statistics import median
from typing import Any

from qoq_lib.runs import write_text_atomic
from step.clock import PARTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gpu_results.md"
NONE_YET = "No measurement has been made yet.\n"
STOCK, OURS = "GRPOTrainer", "DRPOTrainer"
TRAINED = ("log-probabilities", "forward", "backward")  # parts of which utilisation is told
OWN_PARTS = ("DRPO", "rewards", "traces")

Result = dict[str, Any]


def summarise(result: Result) -> Result:
    """Figures of each trainer measured so far, and ``ratio`` where both were.

    A trainer's: median ``seconds`` of each part and of the ``step``, ``samples_per_s``,
    ``new_tokens_per_s`` and ``tokens_per_s`` (prompts too) by the median step, ``bound`` (least
    seconds of a part on this device), ``mfu``, ``hfu``, ``own_share`` (rewards, DRPO and traces of
    the step) and ``peak_gib``. ``ratio`` is samples/s, ours by TRL's, of each pair of blocks.
    """
    names = [name for name in (STOCK, OURS) if _blocks(result, name)]
    summary: Result = {name: _figures(result, name) for name in names}
    taken = [[_block_seconds(block) for block in _blocks(result, name)] for name in (STOCK, OURS)]
    ratios = [stock / ours for stock, ours in zip(*taken, strict=False)]
    if ratios:
        low, high = min(ratios), max(ratios)
        middle = median(ratios)
        summary["ratio"] = {"median": middle, "low": low, "high": high, "pairs": len(ratios)}
    return summary


def _blocks(result: Result, name: str) -> list[Result]:
    return [block for block in result["blocks"] if block["trainer"] == name]


def _block_seconds(block: Result) -> float:
    """Mean seconds of a step of the block."""
    return sum(sum(step["seconds"].values()) for step in block["steps"]) / len(block["steps"])


def _figures(result: Result, name: str) -> Result:
    blocks, settings, peak = _blocks(result, name), result["settings"], result["limits"]["peak"]
    steps = [step for block in blocks for step in block["steps"]]
    seconds = {part: median(step["seconds"].get(part, 0.0) for step in steps) for part in PARTS}
    operations = {
        part: median(step["flops"].get(part, 0) for step in steps)
        for part in ("prefill", *TRAINED, "recomputation")
    }
    whole = median(sum(step["seconds"].values()) for step in steps)
    bound = {part: operations[part] / peak for part in ("prefill", *TRAINED)}
    bound["decoding"] = result["decoding_bound"]["seconds"]
    able = peak * sum(seconds[part] for part in TRAINED)
    model_work = sum(operations[part] for part in TRAINED)
    rows, new = settings["questions"] * settings["rollouts"], settings["new_tokens"]
    peaks = [block["peak_gib"] for block in blocks if block["peak_gib"] is not None]
    return {
        "seconds": seconds,
        "step": whole,
        "bound": bound,
        "operations": operations,
        "samples_per_s": rows / whole,
        "new_tokens_per_s": rows * new / whole,
        "tokens_per_s": rows * (settings["prompt_tokens"] + new) / whole,
        "mfu": model_work / able,
        "hfu": (model_work + operations["recomputation"]) / able,
        "own_share": sum(seconds[part] for part in OWN_PARTS) / whole,
        "peak_gib": max(peaks, default=None),
    }


def table(result: Result) -> str:
    """Markdown: a row for each part, then the figures of the whole step."""
    summary = result["summary"]
    head = ["part", f"{STOCK} (s)", "x bound", f"{OURS} (s)", "x bound", "ratio", "share of a step"]
    lines = [_row(head), "|---" * len(head) + "|"]
    for part, meaning in PARTS.items():
        if any(summary[name]["seconds"][part] for name in (STOCK, OURS) if name in summary):
            lines.append(_row([f"{part}: {meaning}", *_cells(summary, part)]))
    lines.append(_row(["**step**", *_cells(summary, None)]))
    return "\n".join([*lines, "", *_notes(result)]) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(summary: Result, part: str | None) -> list[str]:
    cells, seconds = [], {}
    for name in (STOCK, OURS):
        if name not in summary:
            cells += ["-", "-"]
            continue
        figures = summary[name]
        seconds[name] = figures["step"] if part is None else figures["seconds"][part]
        bound = figures["bound"].get(part)
        cells += [f"{seconds[name]:.3f}", f"{seconds[name] / bound:.1f}" if bound else ""]
    both = len(seconds) == 2 and seconds[STOCK] > 0
    ratio = f"{seconds[OURS] / seconds[STOCK]:.2f}" if both else ""
    share = f"{seconds[OURS] / summary[OURS]['step']:.1%}" if OURS in seconds else ""
    return [*cells, ratio, share]


def _notes(result: Result) -> list[str]:
    summary, limits, decoding = result["summary"], result["limits"], result["decoding_bound"]
    notes = [_note(name, summary[name]) for name in (STOCK, OURS) if name in summary]
    notes += [f"- {name}: {why}" for name, why in result["failures"].items()]
    if "ratio" in summary:
        ratio = summary["ratio"]
        notes.append(
            f"- Samples/s, {OURS} by {STOCK}: **{ratio['median']:.2f}** (median of {ratio['pairs']}"
            f" pairs of blocks, {ratio['low']:.2f} to {ratio['high']:.2f})"
        )
    if OURS in summary:
        notes.append(f"- DRPO, rewards and traces: {summary[OURS]['own_share']:.2%} of a step")
    if result["device"] == "CPU":
        notes.append(f"- Peak memory of the process, both in it: {result['peak_rss_gib']:.2f} GiB")
    return [
        *notes,
        f"- Limits ({limits['source']}): {limits['bandwidth'] / 1e9:,.0f} GB/s, "
        f"{limits['peak'] / 1e12:,.2f} TFLOP/s. Least time to decode: weights "
        f"{decoding['weights']:.3g} s, cache {decoding['cache']:.3g} s, or operations "
        f"{decoding['operations']:.3g} s",
    ]


def _note(name: str, figures: Result) -> str:
    peak = "" if figures["peak_gib"] is None else f", peak {figures['peak_gib']:.1f} GiB"
    return (
        f"- {name}: {figures['samples_per_s']:.2f} samples/s, {figures['new_tokens_per_s']:,.0f} "
        f"new tokens/s, {figures['tokens_per_s']:,.0f} tokens/s with prompts{peak}; "
        f"log-probabilities and backward: {figures['mfu']:.1%} MFU, {figures['hfu']:.1%} with what "
        "is computed again"
    )


def record(page: Path, result: Result) -> None:
    """Append the result as a section; the first one takes the place of the note."""
    text = page.read_text(encoding="utf-8").replace(NONE_YET, "").rstrip()
    title = f"## {result['settings']['size']} on {result['device']}, {result['date'][:10]}"
    origin = f"Commit {result['commit']}, `{result['command']}`"
    write_text_atomic(page, f"{text}\n\n{title}\n\n{origin}\n\n{table(result)}")
