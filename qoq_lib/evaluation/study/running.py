"""The work of a study, piece by piece: what a seed starts from, and one arm from there.

Each piece is skipped where it is finished and goes on where it was killed.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import DatasetDict

from qoq_lib.data.assemble import assemble, load_assembled, load_assembly
from qoq_lib.data.balance import Balance
from qoq_lib.data.storage import ASSEMBLY_FILE
from qoq_lib.evaluation.metrics import evaluate
from qoq_lib.evaluation.predict import predict
from qoq_lib.evaluation.study.config import DataPlan, Study
from qoq_lib.evaluation.study.planning import (
    DECODINGS,
    ArmRun,
    Start,
    arm_settings,
    data_folder,
    key_of,
    recorded_digest,
    start_folder,
)
from qoq_lib.evaluation.training_runs import groups
from qoq_lib.model.loading import ModelSize, load_model
from qoq_lib.runs import code_version, derive_seed, sha256_file, write_json_atomic
from qoq_lib.training import stages
from qoq_lib.training.checkpoints import last_complete
from qoq_lib.training.estimators import NEED_GREEDY
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.launch import train
from qoq_lib.training.methods import Method
from qoq_lib.training.rollouts import read_rollouts

CURVE_FILE = "curve.parquet"
SAVE_MINUTES = 1.0  # between checkpoints: an arm of a tiny model takes minutes
METRICS = ("macro_f1", "penalised_f1", "balanced_accuracy", "exact_match", "invalid_rate")
BOX_METRICS = ("box_iou", "pointing")  # of a study whose answers draw boxes
FLOORS = ("constant", "all_options")


def find_start(study: Study, seed: int, folder: Path, data_root: Path | None) -> Start | None:
    """What ``prepare`` made for this seed, or ``None``.

    Where the weights were left behind, their digest is the plan's: finished arms need no more.
    """
    data = data_folder(study, seed, folder, data_root)
    if not (data / ASSEMBLY_FILE).is_file():
        return None
    fingerprint = load_assembly(data).fingerprint
    aligned = start_folder(study, seed, folder, fingerprint) / "checkpoints" / "aligned"
    digest = weights_digest(aligned) if has_weights(aligned) else recorded_digest(aligned, folder)
    return Start(seed, data, aligned, fingerprint, digest) if digest else None


def prepare(study: Study, seed: int, folder: Path, data_root: Path | None) -> Start:
    """Assemble the seed's data and align its model, once for all arms."""
    found = find_start(study, seed, folder, data_root)
    if found and has_weights(found.checkpoint):
        return found
    out = data_folder(study, seed, folder, data_root)
    with _logged(folder / "logs" / f"start-seed{seed}.txt"):
        if not (out / ASSEMBLY_FILE).is_file():
            _assemble(study.data, out, seed, data_root)
        data = load_assembled(out)
        start = start_folder(study, seed, folder, load_assembly(out).fingerprint)
        _, _, log = stages.align_base(data, study.size(), start, seed)
        log.to_parquet(start / "alignment_log.parquet", index=False)
    made = find_start(study, seed, folder, data_root)
    assert made is not None
    return made


def _assemble(plan: DataPlan, out: Path, seed: int, data_root: Path | None) -> None:
    assemble(
        plan.source,
        out,
        data_root=data_root,
        rows=plan.rows,
        seed=seed,
        difficulty=plan.difficulty,
        balance=Balance(plan.balance, plan.temperature, plan.cap),
    )


def run_arm(study: Study, run: ArmRun) -> None:
    """Train the arm where that is not done, then answer the study's split where that is not."""
    run.folder.mkdir(parents=True, exist_ok=True)
    data = load_assembled(run.start.data)
    settings = arm_settings(study, run.arm, run.start)
    write_json_atomic(run.folder / "settings.json", settings)
    with _logged(run.folder / "log.txt"):
        if not run.cost.is_file():
            _train(study, run, data)
        if not all(run.predictions(study.split, name).is_file() for name in DECODINGS):
            _answer(study, run, data)
        _score(study, run)


def _train(study: Study, run: ArmRun, data: DatasetDict) -> None:
    method = run.arm.resolved()
    cost: dict[str, Any] = {"completions": 0, "seconds": 0.0, "resumed": False, "device": "none"}
    if method is not None:
        _, processor = load_model(run.start.checkpoint)
        size = _sized(study, run, data, processor)
        resumed = last_complete(run.folder / "checkpoints" / "training") is not None
        begin = time.monotonic()
        job = TrainingJob(
            start=run.start.checkpoint,
            size=size,
            method=method,
            reward=run.arm.reward,
            seed=run.start.seed,
            data=run.start.fingerprint,
            save_minutes=SAVE_MINUTES,
        )
        train(job, data["train"], run.folder)
        cost |= {"seconds": round(time.monotonic() - begin, 3), "resumed": resumed}
        cost |= {"completions": _completions(run.folder, method), "device": _device(size)}
    write_json_atomic(run.cost, cost | {"code": code_version()})


def _completions(folder: Path, method: Method) -> int:
    """Completions that training generated; the curve over its steps is written on the way."""
    if method.advantages is None:
        return 0
    rollouts = read_rollouts(folder / "rollouts", texts=False)
    curve_table(rollouts).to_parquet(folder / CURVE_FILE, index=False)
    return len(rollouts) + len(groups(rollouts)) * (method.advantages in NEED_GREEDY)


def curve_table(rollouts: pd.DataFrame) -> pd.DataFrame:
    """``step, domain, rollouts, reward, correct`` (means) of a training's rollouts."""
    rollouts = rollouts.assign(correct=rollouts["correct"].astype(float))
    parts = rollouts.groupby(["step", "domain"], as_index=False)
    return parts.agg(
        rollouts=("reward", "size"), reward=("reward", "mean"), correct=("correct", "mean")
    )


def _answer(study: Study, run: ArmRun, data: DatasetDict) -> None:
    model, processor = load_model(run.trained)
    size = _sized(study, run, data, processor)
    for name, temperature in DECODINGS.items():
        target = run.predictions(study.split, name)
        target.parent.mkdir(exist_ok=True)
        predict(
            model,
            processor,
            data[study.split],
            style=size.answer_style,
            max_new_tokens=size.max_completion_length or 0,
            temperature=temperature,
            seed=derive_seed(run.start.seed, "evaluation"),  # the same draws for every arm
            path=target,
        )


def _score(study: Study, run: ArmRun) -> None:
    """Scores are kept, since a study has hundreds of tables of answers."""
    for name in DECODINGS:
        scores = evaluate(pd.read_parquet(run.predictions(study.split, name)), resamples=0)
        boxes = BOX_METRICS if study.size().answer_style != "brief" else ()
        domains = {domain: _numbers(part, boxes) for domain, part in scores["domains"].items()}
        kept = {"overall": _numbers(scores["overall"], boxes), "domains": domains}
        write_json_atomic(run.scores(study.split, name), kept)


def _numbers(score: Mapping[str, Any], boxes: Sequence[str]) -> dict[str, float]:
    """The scores that a study keeps; ``lesions`` is how many questions those of boxes rest on.

    A domain without options to choose from has no scores of labels.
    """
    numbers = {name: score[name] for name in ("n", *METRICS) if name in score}
    if drawn := [name for name in boxes if name in score]:
        numbers |= {name: score[name] for name in drawn} | {"lesions": score["rows"][drawn[0]]}
    floors = {name: value for name, value in score["floors"].items() if name in FLOORS}
    return numbers | {f"floor_{name}": value for name, value in floors.items()}


def _sized(study: Study, run: ArmRun, data: DatasetDict, processor: Any) -> ModelSize:
    """The size with the length of answers that all splits need, the same for every arm."""
    size = study.size(run.arm)
    size.max_completion_length = stages.answer_length(size, data, processor.tokenizer)
    return size


def has_weights(checkpoint: Path) -> bool:
    """Whether weight files are there; checkpoints are written whole."""
    return any(checkpoint.glob("*.safetensors"))


def weights_digest(checkpoint: Path) -> str:
    """A hash of a checkpoint's weight files, names and bytes."""
    return key_of({file.name: sha256_file(file) for file in checkpoint.glob("*.safetensors")})


def _device(size: ModelSize) -> str:
    return torch.cuda.get_device_name() if size.needs_gpu else "CPU, one thread"


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """What is printed inside goes to the end of a file: workers would print across each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as log:
        with redirect_stdout(log), redirect_stderr(log):
            yield
