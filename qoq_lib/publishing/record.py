"""What a run left on disk about one of its checkpoints: the evidence that a release rests on.

Nothing is taken from memory or typed by hand, and parts that do not belong together are refused:
weights of an unfinished training, scores from before it, data assembled again since.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from qoq_lib.data.cards import Card, CardError, load_card, load_cards
from qoq_lib.data.storage import load_assembly, load_index
from qoq_lib.model.files import read_json
from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.publishing.weights import find_weights
from qoq_lib.runs import project_root, runs_root
from qoq_lib.runs.manifest import Manifest
from qoq_lib.training.checkpoints import STAGES

ANALYSIS = "05_domain_analysis"
LEARNED_FROM = ("train", "validation", "align")
"""Splits that decide weights; the validation split takes part in the choice of settings."""

Stage = Mapping[str, Any]
Stages = Mapping[str, Stage]
Rows = dict[str, dict[str, int]]


@dataclass(frozen=True)
class RunRecord:
    """The record of one checkpoint of a run.

    Attributes:
        folder: the run folder.
        checkpoint: ``trained`` or ``aligned``.
        stages: entries of ``run.json`` by notebook, in order.
        scores: ``metrics.json``: what ``evaluate`` says of each model, in the order they were made.
        rows: rows by data set and split.
        labels: the label set of each data set.
        start: the record of the run whose checkpoint this training started from, if another.
    """

    folder: Path
    checkpoint: str
    stages: Stages
    scores: dict[str, dict[str, Any]]
    rows: Rows
    labels: dict[str, list[str]]
    start: "RunRecord | None"

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def stage(self) -> Stage:
        """The entry of the notebook that made the checkpoint."""
        return _maker(self.stages, self.checkpoint)[1]

    @property
    def base_model(self) -> str:
        """Where training began, if one goes back far enough: a Hub id, or ``tiny``."""
        return self.start.base_model if self.start else str(self.stage["base_model"])

    @property
    def learned_from(self) -> tuple[str, ...]:
        """The data sets that shaped the weights, the starting run's included."""
        before = self.start.learned_from if self.start else ()
        own = [name for name, counts in self.rows.items() if set(counts) & set(LEARNED_FROM)]
        return tuple(sorted({*before, *own, *self._drawn()}))

    @property
    def tested_on(self) -> tuple[str, ...]:
        """The data sets of the test split."""
        return tuple(sorted(name for name, counts in self.rows.items() if "test" in counts))

    @cached_property
    def cards(self) -> dict[str, Card]:
        """The data card of each data set that was learned from or tested on (``cards_of``)."""
        return cards_of({*self.learned_from, *self.tested_on})

    def _drawn(self) -> set[str]:
        """Real data hold no perception questions, and are aligned on the phantom's."""
        aligned_here = self.start is None
        has_own = any("align" in counts for counts in self.rows.values())
        return set(load_card("phantom").datasets) if aligned_here and not has_own else set()


def cards_of(datasets: Iterable[str]) -> dict[str, Card]:
    """The card that speaks for each data set, by the data set's name.

    Raises:
        CardError: one has none, so that nothing made from it may be published.
    """
    cards = load_cards().values()
    speaks = {name: card for card in cards for name in (card.name, *card.datasets)}
    names = sorted(set(datasets))
    for name in names:
        if name not in speaks:
            raise CardError(
                f"No data card speaks for {name!r}: write data_cards/{name}.md before anything "
                "made from these data is published."
            )
    return {name: speaks[name] for name in names}


def read_record(run_folder: Path, checkpoint: str = "") -> RunRecord:
    """The record of a run's ``checkpoint``, or of the last that it finished.

    Raises:
        ReleaseError: something is missing, unfinished or of another time than the rest.
        RunError, AssemblyError: ``run.json`` or the assembled data cannot be read.
    """
    folder = Path(run_folder)
    name = find_weights(folder, checkpoint).name
    stages = released_stages(folder)
    maker, entry = _maker(stages, name)
    if entry["status"] != "completed":
        raise ReleaseError(
            f"{maker} of run {folder.name!r} is recorded as {entry['status']}: run it to its end "
            "before its weights are published."
        )
    rows, labels = _data(folder, entry)
    scores = _scores(folder, stages, name, entry)
    start = _start(folder, name, entry)
    return RunRecord(folder, name, stages, scores, rows, labels, start)


def released_stages(run_folder: Path) -> Stages:
    """The entries of ``run.json`` that are published, in order: what came before publishing.

    The stage that publishes is not among them, so that to publish again changes nothing.

    Raises:
        ReleaseError: the folder is not a run's.
        RunError: ``run.json`` cannot be read.
    """
    path = Path(run_folder) / "run.json"
    if not path.is_file():
        raise ReleaseError(f"{run_folder} holds no run.json: name the folder of a run.")
    stages = Manifest(path, path.parent.name).read()["stages"]
    return {name: entry for name, entry in sorted(stages.items()) if name < "06"}


def _maker(stages: Stages, checkpoint: str) -> tuple[str, Stage]:
    """The notebook that made a checkpoint (03 aligns, too, where 02 was not run), and its entry."""
    for name in (STAGES[checkpoint], STAGES["trained"]):
        if name in stages:
            return name, stages[name]
    raise ReleaseError(
        f"run.json does not tell how the {checkpoint} checkpoint was made: run notebook 03 with "
        "this run_id."
    )


def _data(folder: Path, entry: Stage) -> tuple[Rows, dict[str, list[str]]]:
    """Rows by data set and split, and label sets, of the data behind a checkpoint."""
    assembly = load_assembly(folder / "data")
    if assembly.fingerprint != (entry["dataset"] or {}).get("fingerprint"):
        raise ReleaseError(
            f"The data in {folder / 'data'} are not those that the checkpoint was trained on: "
            "they were assembled again, so train again, too."
        )
    index = load_index(folder / "data", ["dataset", "split"])
    counted = index.group_by(["dataset", "split"]).aggregate([([], "count_all")])
    rows: Rows = {}
    for line in counted.sort_by([("dataset", "ascending"), ("split", "ascending")]).to_pylist():
        rows.setdefault(line["dataset"], {})[line["split"]] = line["count_all"]
    # The align split has questions of its own, about what is to be seen.
    labels = {
        name: sorted(answer for answer, counts in answers.items() if set(counts) - {"align"})
        for name, answers in assembly.labels.items()
    }
    return rows, labels


def _scores(
    folder: Path, stages: Stages, checkpoint: str, entry: Stage
) -> dict[str, dict[str, Any]]:
    again = f"run notebook 05 with run_id {folder.name!r}"
    analysis = stages.get(ANALYSIS)
    if not analysis or analysis["status"] != "completed":
        raise ReleaseError(f"Run {folder.name!r} has no finished domain analysis: {again} first.")
    if _time(analysis["started"]) < _time(entry["ended"]):
        raise ReleaseError(
            f"The scores of run {folder.name!r} are older than its checkpoint: {again} again."
        )
    scores = read_json(folder / "metrics.json")
    if checkpoint not in scores:
        raise ReleaseError(f"metrics.json has no scores of the {checkpoint} model: {again} again.")
    if "patients_of" not in scores[checkpoint]["overall"]:
        raise ReleaseError(
            "metrics.json was written by an older version and does not tell how many patients each "
            f"score rests on: {again} again."
        )
    found = scores[checkpoint]["subgroups"].values()
    if any("datasets" not in gap for kind in found for gap in kind["gaps"].values()):
        raise ReleaseError(
            "metrics.json was written by an older version, whose gaps between subgroups compare "
            f"other data sets: {again} again."
        )
    return scores


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _start(folder: Path, checkpoint: str, entry: Stage) -> RunRecord | None:
    """The record behind ``start_from``, which has a say in what may be released."""
    given = entry["parameters"].get("start_from")
    if checkpoint != "trained" or not given:
        return None
    for base in (folder, project_root(), runs_root()):
        place = (base / given).resolve()
        run = place.parent.parent
        if place.name not in STAGES or not place.is_dir() or not (run / "run.json").is_file():
            continue
        return None if run == folder.resolve() else _start_record(run, place.name)
    raise ReleaseError(
        f"The training started from {given!r}, and what that was trained on is not on record here: "
        f"copy the run that made it into {runs_root()} and train from there."
    )


def _start_record(run: Path, checkpoint: str) -> RunRecord:
    """The record of a starting run, which need not have been analysed."""
    stages = released_stages(run)
    entry = _maker(stages, checkpoint)[1]
    rows, labels = _data(run, entry)
    start = _start(run, checkpoint, entry)
    return RunRecord(run, checkpoint, stages, {}, rows, labels, start)
