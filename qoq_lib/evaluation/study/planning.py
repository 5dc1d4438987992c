"""Which runs a study is made of, and the name of each: a hash of everything that decides it.

Equal hashes mean equal results, so a run is made once, whichever arm, study or attempt asks for it.
The code itself is not hashed: after a change to training or scoring use a new folder.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qoq_lib.evaluation.study.config import Arm, Study
from qoq_lib.runs import write_json_atomic
from qoq_lib.training.rewards import PRESETS as REWARDS

DECODINGS = {"greedy": 0.0, "sampled": 1.0}
"""How answers are decoded, and at which temperature."""

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Start:
    """What all arms of a seed share.

    Attributes:
        data: folder of the assembled data.
        checkpoint: folder of the aligned model.
        fingerprint: of the assembled data.
        digest: a hash of the aligned weights.
    """

    seed: int
    data: Path
    checkpoint: Path
    fingerprint: str
    digest: str


@dataclass(frozen=True)
class ArmRun:
    """One arm at one seed; arms with equal settings share a ``folder``."""

    arm: Arm
    start: Start
    folder: Path

    def predictions(self, split: str, decoding: str) -> Path:
        """The parquet file of the answers on ``split``; ``decoding`` is a key of ``DECODINGS``."""
        return self.folder / "predictions" / f"{split}-{decoding}.parquet"

    def scores(self, split: str, decoding: str) -> Path:
        """The JSON file of the scores of those answers."""
        return self.predictions(split, decoding).with_suffix(".json")

    @property
    def trained(self) -> Path:
        """The checkpoint that is scored."""
        own = self.folder / "checkpoints" / "trained"
        return self.start.checkpoint if self.arm.method is None else own

    @property
    def cost(self) -> Path:
        """The file that training ends with."""
        return self.folder / "cost.json"

    def finished(self, split: str) -> bool:
        """Whether training is done and both sets of answers on ``split`` are scored."""
        return self.cost.is_file() and all(self.scores(split, name).is_file() for name in DECODINGS)


def key_of(settings: Any) -> str:
    """Twelve hexadecimal digits that stand for ``settings``, which JSON can hold."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def data_folder(study: Study, seed: int, folder: Path, data_root: Path | None) -> Path:
    """Where the seed's data lie."""
    root = str(data_root.resolve()) if data_root else None
    key = key_of({"data": study.data.model_dump(), "seed": seed, "root": root})
    return folder / "data" / f"seed{seed}-{key}"


def start_folder(study: Study, seed: int, folder: Path, fingerprint: str) -> Path:
    """Where the seed's aligned model lies."""
    size = study.size()
    settings = size.model_dump(exclude={"training"}) | {"data": fingerprint, "seed": seed}
    return folder / "starts" / f"seed{seed}-{key_of(settings)}"


def arm_run(study: Study, arm: Arm, start: Start, folder: Path) -> ArmRun:
    """The run of ``arm`` from ``start`` in the study's ``folder``."""
    key = key_of(arm_settings(study, arm, start))
    return ArmRun(arm, start, folder / "arms" / f"seed{start.seed}-{key}")


def arm_settings(study: Study, arm: Arm, start: Start) -> dict[str, Any]:
    """Everything that decides the weights an arm ends with, presets written out."""
    shared = {"data": start.fingerprint, "start": start.digest, "seed": start.seed}
    method = arm.resolved()
    if method is None:
        return shared
    size = study.size(arm).model_dump(exclude={"alignment"})
    choices = method.model_dump(exclude={"drpo"}) | {"reward": asdict(REWARDS[arm.reward])}
    if method.advantages == "drpo":
        choices["drpo"] = asdict(method.drpo_config)
        if not method.grpo.get("beta", size["training"]["beta"]):
            choices["drpo"]["kl_damping"] = True  # either way: without a KL nothing is damped
    return shared | {"size": size, "method": choices}


def runs_of(study: Study, starts: Sequence[Start], folder: Path) -> list[ArmRun]:
    """All arms of all seeds, seed by seed."""
    return [arm_run(study, arm, start, folder) for start in starts for arm in study.arms]


def write_plan(study: Study, starts: Sequence[Start], folder: Path) -> Path:
    """Write ``plan.json``: the study, what each seed starts from, and the folder of each run.

    Starts of other studies in the folder stay listed: ``recorded_digest`` reads them.
    """
    facts = _recorded_starts(folder)
    for start in starts:
        checkpoint = _inside(start.checkpoint, folder)
        fact = {"seed": start.seed, "fingerprint": start.fingerprint, "digest": start.digest}
        facts[checkpoint] = fact | {"data": _inside(start.data, folder), "checkpoint": checkpoint}
    runs = [
        {"arm": run.arm.name, "seed": run.start.seed, "folder": _inside(run.folder, folder)}
        for run in runs_of(study, starts, folder)
    ]
    plan = {"study": study.model_dump(), "starts": list(facts.values()), "runs": runs}
    return write_json_atomic(folder / PLAN_FILE, plan)


def recorded_digest(checkpoint: Path, folder: Path) -> str | None:
    """The digest that the plan in ``folder`` has of the aligned weights once at ``checkpoint``."""
    start = _recorded_starts(folder).get(_inside(checkpoint, folder))
    return start["digest"] if start else None


def _recorded_starts(folder: Path) -> dict[str, dict[str, Any]]:
    file = folder / PLAN_FILE
    starts = json.loads(file.read_text(encoding="utf-8"))["starts"] if file.is_file() else []
    return {start["checkpoint"]: start for start in starts}


def _inside(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
