"""One release of a run on disk: a folder for each repository, complete with card and evidence.

``<out>/model``, ``<out>/traces`` and ``<out>/gguf`` are what ``hub.publish`` pushes, byte for byte;
nothing here talks to the Hub.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from qoq_lib.publishing import cards
from qoq_lib.publishing.evidence import published_manifest, write_evidence
from qoq_lib.publishing.folders import ReleaseError, built_folder
from qoq_lib.publishing.gguf import find_converter, write_gguf
from qoq_lib.publishing.policy import Verdict, judge, require
from qoq_lib.publishing.record import RunRecord, cards_of, read_record, released_stages
from qoq_lib.publishing.scan import check_clean
from qoq_lib.publishing.traces import write_traces
from qoq_lib.publishing.weights import Kind, Weights, write_weights
from qoq_lib.runs import write_json_atomic, write_text_atomic

What = Literal["model", "traces", "both"]
RELEASE_FILE = "release.json"
CARD = "README.md"


@dataclass(frozen=True)
class Part:
    """One repository of a release: its folder, its Hub id and what the data cards say of it."""

    folder: Path
    repo_id: str
    repo_type: Literal["model", "dataset"]
    verdicts: tuple[Verdict, ...]


def write_release(
    run_folder: Path,
    out: Path,
    repo_id: str,
    *,
    what: What = "both",
    kind: Kind = "auto",
    checkpoint: str = "",
    base_model: str = "",
    benchmark: str = "",
    gguf: bool = False,
    gated: bool = False,
    leave_out: bool = False,
) -> tuple[Part, ...]:
    """Write a release of a run to the folder ``out``.

    Args:
        run_folder: of a run that was trained and analysed (for traces alone: that has some).
        out: a new folder, or one that this function wrote; it changes as a whole or not at all.
        repo_id: ``owner/name``; where both are released, the traces go to ``owner/name-traces``.
        what: ``model``, ``traces`` or ``both``.
        kind: of the weights (``write_weights``).
        checkpoint: of the run (``write_weights``).
        base_model: of an adapter (``write_weights``).
        benchmark: Hub id of a benchmark that holds the test questions; its results are then written
            to ``.eval_results/``.
        gguf: whether the model is written in GGUF, too, for ``owner/name-GGUF``; where llama.cpp's
            converter is not installed this is skipped, with a note.
        gated: whether the repositories have a gate, which some sources ask for.
        leave_out: leave out traces that may not leave, instead of refusing the release.

    Raises:
        ReleaseError: something is missing, unfinished, or does not belong together.
        PolicyError: a data card forbids it; its ``verdicts`` are the table of reasons.
        ScanError: something that must not leave stands in a file.
        CardError, RunError, AssemblyError, LoadError: a data card, ``run.json``, the assembled data
            or the weights cannot be read.
    """
    if what not in get_args(What):
        raise ReleaseError(f"Cannot release {what!r}: use {', '.join(get_args(What))}.")
    run, out = Path(run_folder), Path(out)
    model_id = repo_id if what != "traces" else None
    traces_id = {"both": f"{repo_id}-traces", "traces": repo_id}.get(what)
    parts = []
    with built_folder(out, RELEASE_FILE) as folder:
        if traces_id:
            parts.append(
                _write_traces(run, folder / "traces", traces_id, model_id, gated, leave_out)
            )
        if model_id:
            record = read_record(run, checkpoint)
            verdicts = judge(record.learned_from, "weights", gated=gated)
            require(verdicts)
            weights = write_weights(
                run,
                folder / "model",
                kind=kind,
                checkpoint=record.checkpoint,
                base_model=base_model,
            )
            _finish_model(record, weights, verdicts, model_id, traces_id, benchmark)
            parts.append(Part(folder / "model", model_id, "model", verdicts))
            if gguf and (converter := _converter(weights)):
                parts.append(_write_gguf(record, weights, verdicts, model_id, converter))
        told = [asdict(one) | {"folder": one.folder.name} for one in parts]
        write_json_atomic(folder / RELEASE_FILE, {"run_id": run.name, "parts": told})
    return tuple(replace(one, folder=out / one.folder.name) for one in parts)


def _write_traces(
    run: Path, folder: Path, repo_id: str, model_id: str | None, gated: bool, leave_out: bool
) -> Part:
    traces = write_traces(run, folder, gated=gated, leave_out=leave_out)
    stages, spoken_for = released_stages(run), cards_of(traces.datasets)
    texts = {CARD: cards.dataset_card(traces, stages, spoken_for, repo_id, model_id)}
    texts |= cards.terms_file(cards.APACHE, traces.verdicts)
    shown = {one.dataset for one in traces.verdicts}
    _add(folder, texts, lambda evidence: write_evidence(run, stages, spoken_for, shown, evidence))
    return Part(folder, repo_id, "dataset", traces.verdicts)


def _finish_model(
    record: RunRecord,
    weights: Weights,
    verdicts: tuple[Verdict, ...],
    repo_id: str,
    traces_id: str | None,
    benchmark: str,
) -> None:
    """Card, benchmark results, terms and evidence beside the weights."""
    texts = {CARD: cards.model_card(record, weights, verdicts, repo_id, traces_id)}
    texts |= cards.terms_file(cards.base_license(record.base_model), verdicts)
    if benchmark:
        name = benchmark.rsplit("/", 1)[-1]
        texts[f".eval_results/{name}.yaml"] = cards.benchmark_results(record, benchmark)
    texts["metrics.json"] = (record.folder / "metrics.json").read_text(encoding="utf-8")

    def evidence(folder: Path) -> None:
        write_evidence(record.folder, record.stages, record.cards, record.cards, folder)

    _add(weights.folder, texts, evidence)


def _converter(weights: Weights) -> Path | None:
    """llama.cpp's converter; where it is missing a note says so."""
    if weights.kind == "adapter":
        raise ReleaseError("An adapter cannot be written in GGUF: release it as 'merged'.")
    found = find_converter()
    if found is None:
        print(
            "NOTE: no GGUF files are written: llama.cpp's converter is not installed here (clone "
            "llama.cpp and name its folder in LLAMA_CPP)."
        )
    return found


def _write_gguf(
    record: RunRecord,
    weights: Weights,
    verdicts: tuple[Verdict, ...],
    model_id: str,
    converter: Path,
) -> Part:
    folder, repo_id = weights.folder.with_name("gguf"), f"{model_id}-GGUF"
    folder.mkdir()
    text, vision = write_gguf(weights.folder, folder, model_id.rsplit("/", 1)[1], converter)
    files = (text.name, vision.name)
    texts = {CARD: cards.gguf_card(record, verdicts, repo_id, model_id, files)}
    texts |= cards.terms_file(cards.base_license(record.base_model), verdicts)

    def evidence(added: Path) -> None:
        write_json_atomic(added / "run.json", published_manifest(record.folder, record.stages))

    _add(folder, texts, evidence)
    return Part(folder, repo_id, "model", verdicts)


def _add(folder: Path, texts: Mapping[str, str], evidence: Callable[[Path], object]) -> None:
    """Put texts and evidence into ``folder``, once they were looked through."""
    added = folder.with_name(f"{folder.name}.added")
    added.mkdir()
    evidence(added)
    for name, text in texts.items():
        write_text_atomic(added / name, text)
    check_clean(added)
    shutil.copytree(added, folder, dirs_exist_ok=True)
    shutil.rmtree(added)
