"""One training from its job: in this process, or in several that this one starts.

    python -m qoq_lib.training.launch --config runs/<run_id>/config.yaml

is what each of several processes runs, under ``accelerate launch`` or ``torchrun``; alone it trains
in one. A training that was interrupted goes on from its last checkpoint where its job is the same.
"""

import argparse
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from qoq_lib.training.backend import start_backend_of

if __name__ == "__main__":  # unsloth has to come before what is imported below: it patches that
    start_backend_of(sys.argv[1:])

import pandas as pd
from accelerate import DistributedType, PartialState
from datasets import Dataset
from transformers import PrinterCallback, Trainer

from qoq_lib.data.assemble import load_assembled
from qoq_lib.model.loading import load_model
from qoq_lib.model.pixels import model_view
from qoq_lib.model.tuning import prepare, quantization
from qoq_lib.runs import derive_seed, resume_command
from qoq_lib.training.arguments import grpo_config
from qoq_lib.training.checkpoints import last_complete, remove_partial, save_checkpoint, step_of
from qoq_lib.training.distributed import MODULE, run_processes
from qoq_lib.training.freeing import release_memory
from qoq_lib.training.generation.engines import check_engine, loadable_by_vllm
from qoq_lib.training.job import CONFIG_FILE, TrainingError, TrainingJob, load_job
from qoq_lib.training.methods import balanced
from qoq_lib.training.monitoring.callbacks import LogKeeper, PlainProgress, SaveEvery, StopOnSignal
from qoq_lib.training.monitoring.limits import limits_told
from qoq_lib.training.monitoring.log import LOG_FILE, read_log, step_log
from qoq_lib.training.monitoring.trackers import add_tracker
from qoq_lib.training.questions import question_dataset
from qoq_lib.training.rewards import attainable, reward_functions
from qoq_lib.training.rollouts import RolloutWriter
from qoq_lib.training.sft import AnswerTrainer
from qoq_lib.training.stages import answer_length
from qoq_lib.training.trainer import DRPOTrainer
from qoq_lib.training.with_unsloth import UnslothDRPOTrainer, check_job, load_adapted


def start(
    job: TrainingJob, rows: Dataset, run_folder: Path, *, reuse: bool = False
) -> tuple[Any, Any, pd.DataFrame]:
    """``train`` in as many processes as the job asks for; ``rows`` are those of ``<run>/data``.

    ``reuse`` takes what this very training has already come to, if it was ended and saved.

    Raises:
        TrainingError: as ``train``, or one of several processes failed.
        BackendError: as ``train``.
        SystemExit: as ``train``.
    """
    check_engine(job.rollout, job.method.advantages, job.rollout_server)
    check_job(job, rows)
    if reuse and is_over(job, run_folder):
        print(f"This training was ended before: {run_folder.name} holds its model.")
    elif job.processes == 1:
        trained = train(job, rows, run_folder)
        release_memory()  # the optimiser and the reference policy: the model is asked next
        return trained
    else:
        _claim(job, run_folder)
        release_memory()  # what this process used before is for the others now
        if not run_processes(job, run_folder) or not is_over(job, run_folder):
            _leave(job, run_folder)
    folder = run_folder / "checkpoints" / "trained"
    model, processor = load_model(folder, pixels=job.size.pixels)
    return model, processor, read_log(run_folder)


def train(job: TrainingJob, rows: Dataset, run_folder: Path) -> tuple[Any, Any, pd.DataFrame]:
    """Train on ``rows``; saves ``config.yaml``, ``checkpoints/trained`` and the training log.

    An interrupted training of the same job in this folder goes on from its last checkpoint; any
    other starts clean. Every process of a distributed training calls this.

    Returns (model, processor, log per optimiser step); the supervised arm has neither rollouts nor
    a reward in its log.

    Raises:
        TrainingError: the rollouts of a step cannot be shared out evenly, more or fewer processes
            run than the job was written for, or memory or disk do not suffice.
        BackendError: the job's backend cannot train it here.
        SystemExit: SIGTERM came; everything is saved and the exit code is 0.
    """
    check_job(job, rows)
    state = PartialState(cpu=not job.size.needs_gpu)
    if state.num_processes != job.processes:
        raise TrainingError(
            f"{state.num_processes} process(es) run a training that was planned for "
            f"{job.processes}: start as many, or set num_processes in notebook 03."
        )
    if state.is_main_process:
        _claim(job, run_folder)
    state.wait_for_everyone()
    stop = StopOnSignal()
    with limits_told(job, run_folder), stop.listening():
        trainer = _trainer(job, rows, run_folder)
        trainer.remove_callback(PrinterCallback)
        for callback in (LogKeeper(run_folder), SaveEvery(job.save_minutes), stop):
            trainer.add_callback(callback)
        add_tracker(trainer, job.tracker, run_folder)
        _run(trainer, run_folder)
    if stop.caught:
        _leave(job, run_folder)
    log = step_log(trainer.state.log_history)
    return trainer.model.eval(), trainer.processing_class, log


def _run(trainer: Trainer, run_folder: Path) -> None:
    """Train on from the last checkpoint and, unless stopped before the end, save the model."""
    out, state = run_folder / "checkpoints" / "training", trainer.accelerator.state
    last = last_complete(out)
    if state.is_main_process:
        print(f"Resuming from {last.name}." if last else "Starting from the aligned checkpoint.")
        RolloutWriter(run_folder / "rollouts").drop_after(step_of(last) if last else 0)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    if trainer.state.global_step < trainer.state.max_steps:
        return
    _save(trainer, run_folder / "checkpoints" / "trained")
    if state.is_main_process and out.is_dir():
        shutil.rmtree(out.rename(out.with_name("training.partial")))  # never half of it


def is_over(job: TrainingJob, run_folder: Path) -> bool:
    """Whether this very training was ended and its model saved."""
    config, model = run_folder / CONFIG_FILE, run_folder / "checkpoints" / "trained"
    if not job.is_kept_in(run_folder) or len(read_log(run_folder)) < job.size.training.steps:
        return False
    return model.is_dir() and model.stat().st_mtime >= config.stat().st_mtime


def _leave(job: TrainingJob, run_folder: Path) -> NoReturn:
    """End this process as SIGTERM asks for, saying where it stopped and how to go on."""
    state, config = PartialState(), os.path.relpath(run_folder / CONFIG_FILE)
    alone = f"python -m {MODULE} --config {config}"
    again = alone if job.processes == 1 else "the command that started the processes"
    if state.is_main_process:
        step, steps = len(read_log(run_folder)), job.size.training.steps
        print(
            f"Stopped by SIGTERM at step {step} of {steps}; resume with: "
            f"{resume_command(run_folder) or again}",
            flush=True,
        )
    raise SystemExit(0)


def _claim(job: TrainingJob, run_folder: Path) -> None:
    """The run folder is this job's; what another training left half-way is removed."""
    out = run_folder / "checkpoints" / "training"
    remove_partial(run_folder)
    if not job.is_kept_in(run_folder) or last_complete(out) is None:
        shutil.rmtree(out, ignore_errors=True)
        (run_folder / LOG_FILE).unlink(missing_ok=True)
    job.save(run_folder)


def _trainer(job: TrainingJob, rows: Dataset, run_folder: Path) -> Trainer:
    """The trainer of the job's method, ready to train."""
    size, method, out = job.size, job.method, run_folder / "checkpoints" / "training"
    kind: type[DRPOTrainer] = DRPOTrainer
    # Loaded before ``grpo_config`` sets DeepSpeed up: weights that it shares out while they are
    # read keep their types, and ZeRO-3's first step takes no mixture (DeepSpeed issue 8072).
    if job.backend == "unsloth":
        model, processor = load_adapted(job.start, size, derive_seed(job.seed, "training"))
        kind, adapters = UnslothDRPOTrainer, None
    else:
        model, processor = load_model(
            job.start, quantization_config=quantization(size.tuning), pixels=size.pixels
        )
        adapters = prepare(model, size.tuning, size.trainable)
    if method.sampling == "balanced":
        rows = balanced(rows, derive_seed(job.seed, "balance"))
    functions, weights = reward_functions(job.reward)
    length = answer_length(size, {"train": rows}, processor.tokenizer)
    args = grpo_config(job, weights, processor.tokenizer, out, length)
    if method.advantages is None:
        views = [model_view(row, processor.image_processor) for row in rows]
        return AnswerTrainer(model, processor, views, size.answer_style, args, adapters)
    facts = {"model": size.base, "run_id": run_folder.name, "seed": job.seed}
    with loadable_by_vllm(job, model, run_folder):
        return kind(
            model=model,
            args=args,
            reward_funcs=functions,
            train_dataset=question_dataset(rows, processor.image_processor, size.answer_style),
            processing_class=processor,
            peft_config=adapters,
            estimator=method.advantages,
            drpo=method.drpo_config,
            attainable=partial(attainable, preset=job.reward),
            rollouts=RolloutWriter(run_folder / "rollouts", facts),
            compile_decoding=job.compile_decoding,
            callbacks=[PlainProgress("train")],
        )


def _save(trainer: Trainer, folder: Path) -> None:
    """Write the trained model once; of weights that are shared out all processes bring theirs."""
    accelerator = trainer.accelerator
    sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    weights = accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if accelerator.is_main_process:
        model = accelerator.unwrap_model(trainer.model)
        save_checkpoint(model, trainer.processing_class, folder, weights)
    accelerator.wait_for_everyone()


def main(arguments: list[str] | None = None) -> None:
    """Train the job of ``--config`` on the data of its run folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="<run>/config.yaml")
    path = parser.parse_args(arguments).config.resolve()
    job = load_job(path)
    if is_over(job, path.parent):
        print(f"This training was ended before: remove {CONFIG_FILE} to train anew.")
        return
    train(job, load_assembled(path.parent / "data")["train"], path.parent)


if __name__ == "__main__":
    main()
