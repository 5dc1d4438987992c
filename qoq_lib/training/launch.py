"""The training stages as functions: what notebooks 01-03 call, each usable by itself.

A stage that is missing is built on the way: ``ensure_data`` draws the phantom, ``ensure_aligned``
aligns a model, and both say so.
"""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, DatasetDict
from peft import get_peft_model
from transformers import PrinterCallback
from trl import GRPOConfig

from qoq_lib.data.assemble import assemble, load_assembled, load_assembly
from qoq_lib.data.phantom import make_phantom
from qoq_lib.data.prompts import answer_text
from qoq_lib.data.storage import ASSEMBLY_FILE
from qoq_lib.model.ecg_jepa import load_ecg_jepa
from qoq_lib.model.loading import ModelSize, load_base, load_model
from qoq_lib.model.pixels import model_view
from qoq_lib.model.processing_qoq import suppressed_token_ids
from qoq_lib.model.tuning import prepare, quantization
from qoq_lib.runs import derive_seed
from qoq_lib.training.align import align
from qoq_lib.training.callbacks import LogKeeper, PlainProgress
from qoq_lib.training.checkpoints import last_complete, save_checkpoint, step_of
from qoq_lib.training.log import LOG_FILE, step_log
from qoq_lib.training.methods import Method, balanced
from qoq_lib.training.methods import load_method as load_method
from qoq_lib.training.questions import question_dataset
from qoq_lib.training.rewards import attainable, reward_functions
from qoq_lib.training.rollouts import RolloutWriter
from qoq_lib.training.sft import AnswerTrainer
from qoq_lib.training.trainer import DRPOTrainer

PHANTOM_ROWS = 3000


def ensure_data(folder: Path, seed: int) -> DatasetDict:
    """The assembled data set in ``folder``; the phantom is drawn there when nothing is."""
    if not (folder / ASSEMBLY_FILE).exists():
        print(
            "NOTE: no data set has been assembled for this run, so it uses the embedded PHANTOM "
            "(drawings, not patients); notebook 01 assembles real data."
        )
        assemble("phantom", folder, rows=PHANTOM_ROWS, seed=seed)
    return load_assembled(folder)


def data_facts(folder: Path) -> dict[str, Any]:
    """Fingerprint and rows per split of an assembled folder, for ``run.record``."""
    assembly = load_assembly(folder)
    splits = sorted({split for counts in assembly.rows.values() for split in counts})
    rows = {split: assembly.rows_in(split) for split in splits}
    return {"fingerprint": assembly.fingerprint, "rows": rows, "sources": assembly.sources}


def label_names(data: Mapping[str, Dataset]) -> list[str]:
    """Every answer option of the splits, sorted."""
    return sorted(
        {name for rows in data.values() for options in rows["options"] for name in options}
    )


def answer_length(size: ModelSize, data: Mapping[str, Dataset], tokenizer: Any) -> int:
    """Most new tokens of an answer: the size's, or else what the longest true answer needs."""
    if size.max_completion_length is not None:
        return size.max_completion_length
    said = [answer for rows in data.values() for answer in rows["answers"]]
    said += [[name] for name in label_names(data)]
    answers = {answer_text(labels, (0, 0, 28, 28), size.answer_style) for labels in said}
    return 1 + max(len(tokenizer(text)["input_ids"]) for text in answers)  # 1: the end token


def perception_rows(data: DatasetDict, seed: int) -> Dataset:
    """The ``align`` split, or the phantom's where the data have none (real files carry none)."""
    if "align" in data:
        return data["align"]
    print("These data hold no perception questions: the phantom's are used for alignment.")
    drawn = make_phantom(PHANTOM_ROWS, seed=seed)
    return drawn.filter(lambda split: split == "align", input_columns="split")


def align_base(
    data: DatasetDict, size: ModelSize, run_folder: Path, seed: int, ecg_weights: str = ""
) -> tuple[Any, Any, pd.DataFrame]:
    """Align the size's base and save it to ``checkpoints/aligned``; (model, processor, log).

    ``ecg_weights`` is ECG-JEPA's published file; without it the ECG encoder starts from nothing.
    """
    model, processor = load_base(size, derive_seed(seed, "weights"), label_names(data))
    if ecg_weights:
        load_ecg_jepa(model.model.ecg_encoder, ecg_weights)
    adapters = prepare(model, size.tuning, size.trainable)
    adapted = get_peft_model(model, adapters) if adapters else None  # changes ``model`` in place
    log = align(
        model,
        processor,
        perception_rows(data, seed),
        data["train"],
        size.alignment,
        style=size.answer_style,
        seed=derive_seed(seed, "alignment"),
        out=run_folder / "checkpoints" / "alignment",
    )
    model = adapted.merge_and_unload() if adapted else model
    save_checkpoint(model, processor, run_folder / "checkpoints" / "aligned")
    return model, processor, log


def ensure_aligned(data: DatasetDict, size: ModelSize, run_folder: Path, seed: int) -> Path:
    """The folder of the aligned checkpoint, which is made when there is none."""
    folder = run_folder / "checkpoints" / "aligned"
    if not (folder / "config.json").exists():
        print("No aligned checkpoint in this run: aligning the base model first (notebook 02).")
        align_base(data, size, run_folder, seed)
    return folder


def train(
    start: Path,
    rows: Dataset,
    size: ModelSize,
    method: Method,
    run_folder: Path,
    *,
    reward_preset: str,
    seed: int,
    resume: bool,
) -> tuple[Any, Any, pd.DataFrame]:
    """Train from the checkpoint ``start``; saves ``checkpoints/trained`` and the training log.

    ``resume`` goes on from the last checkpoint of an interrupted training of this run, where there
    is one. Returns (model, processor, log per optimiser step); the supervised arm has neither
    rollouts nor a reward in its log.
    """
    model, processor = load_model(start, quantization_config=quantization(size.tuning))
    out = run_folder / "checkpoints" / "training"
    last = last_complete(out) if resume else None
    if last is None:
        (run_folder / LOG_FILE).unlink(missing_ok=True)  # of an earlier training
    if last is None and out.is_dir():
        shutil.rmtree(out)
    facts = {"model": size.base, "run_id": run_folder.name, "seed": seed}
    rollouts = RolloutWriter(run_folder / "rollouts", facts)
    rollouts.drop_after(step_of(last) if last else 0)
    print(f"Resuming from {last.name}." if last else "Starting from the aligned checkpoint.")
    if method.sampling == "balanced":
        rows = balanced(rows, derive_seed(seed, "balance"))
    functions, weights = reward_functions(reward_preset)
    size.max_completion_length = answer_length(size, {"train": rows}, processor.tokenizer)
    args = _grpo_config(size, method, weights, processor, out, seed)
    adapters = prepare(model, size.tuning, size.trainable)
    trainer: AnswerTrainer | DRPOTrainer
    if method.advantages is None:
        views = [model_view(row, processor.image_processor) for row in rows]
        trainer = AnswerTrainer(model, processor, views, size.answer_style, args, adapters)
    else:
        trainer = DRPOTrainer(
            model=model,
            args=args,
            reward_funcs=functions,
            train_dataset=question_dataset(rows, processor.image_processor, size.answer_style),
            processing_class=processor,
            peft_config=adapters,
            estimator=method.advantages,
            drpo=method.drpo_config,
            attainable=partial(attainable, preset=reward_preset),
            rollouts=rollouts,
            callbacks=[PlainProgress("train")],
        )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LogKeeper(run_folder))
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    save_checkpoint(trainer.model, processor, run_folder / "checkpoints" / "trained")
    shutil.rmtree(out)
    return trainer.model.eval(), processor, step_log(trainer.state.log_history)


def _grpo_config(
    size: ModelSize, method: Method, weights: list[float], processor: Any, out: Path, seed: int
) -> GRPOConfig:
    plan = size.training
    per_step = plan.questions_per_step * plan.rollouts
    accumulation = max(per_step // plan.micro_batch, 1)
    values: dict[str, Any] = dict(
        output_dir=str(out),
        max_steps=plan.steps,
        per_device_train_batch_size=min(plan.micro_batch, per_step),
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation * method.updates_per_generation,
        num_generations=plan.rollouts,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        beta=plan.beta,
        max_completion_length=size.max_completion_length,
        reward_weights=weights,
        generation_kwargs={"suppress_tokens": suppressed_token_ids(processor.tokenizer)},
        bf16=size.dtype == "bfloat16",
        use_cpu=not size.needs_gpu,
        gradient_checkpointing=size.needs_gpu,
        dataloader_pin_memory=size.needs_gpu,
        logging_steps=1,
        save_steps=max(plan.steps // 5, 1),
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        seed=derive_seed(seed, "training"),
        data_seed=derive_seed(seed, "order"),
    )
    return GRPOConfig(**values | method.grpo)
