"""Alignment: teach a model to see in every domain, to answer in the format, and a little medicine.

What alignment teaches decides whether RL can learn at all. Trained on clean diagnoses most groups
have no reward variance left; trained on noise alone the policy collapses to one answer. So after
``naming`` (media tokens near the words for them) the model is trained on perception questions with
true labels, balanced over domains, and on diagnosis questions whose labels are true a quarter of
the time and drawn from the options otherwise: it sees, knows the format, and is mostly undecided.
Where answers come with a box, no example says where a lesion lies: every image gets one, anywhere.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from transformers import PrinterCallback, Trainer, TrainingArguments

from qoq_lib.data.prompts import COORDINATE_STEP, AnswerStyle, answer_text, to_messages
from qoq_lib.model.loading import AlignmentPlan
from qoq_lib.model.pixels import model_view
from qoq_lib.training.monitoring.callbacks import PlainProgress
from qoq_lib.training.naming import Naming, NamingCollator, NamingMix

PERCEPTION_SHARE = 0.4
TRUE_LABEL_SHARE = 0.25
IGNORED = -100  # label id that the loss leaves out


class AlignmentMix(TorchDataset):
    """Example i is a function of (seed, i) alone: a chat's row, the labels and the box to teach.

    Args:
        perception: rows whose question is what can be seen, their answers true.
        diagnosis: diagnosis rows; a label is the true one with ``TRUE_LABEL_SHARE``, else drawn
            from the options.
        length: number of examples, optimiser steps x batch size.
    """

    def __init__(
        self,
        perception: Sequence[Mapping[str, Any]],
        diagnosis: Sequence[Mapping[str, Any]],
        length: int,
        seed: int,
    ) -> None:
        self.perception, self.diagnosis = _by_domain(perception), list(diagnosis)
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = random.Random(f"{self.seed}/{index}")
        row, answers = self._said(rng)
        return {"row": row, "answers": answers, "box": anywhere(row, rng)}

    def _said(self, rng: random.Random) -> tuple[Mapping[str, Any], list[str]]:
        if rng.random() < PERCEPTION_SHARE:
            row = rng.choice(self.perception[rng.choice(sorted(self.perception))])
            return row, row["answers"]
        row = rng.choice(self.diagnosis)
        if rng.random() < TRUE_LABEL_SHARE:
            return row, row["answers"]
        return row, [rng.choice(row["options"])]


def anywhere(row: Mapping[str, Any], rng: random.Random) -> list[int] | None:
    """A box in the image that says nothing of lesions, not even whether there are any.

    ``[x1, y1, x2, y2]``, one step of ``COORDINATE_STEP`` wide and high, its place drawn evenly from
    the multiples of it. ``row`` as ``model_view`` gives it; ``None`` for one without an image.
    """
    if not row["images"]:
        return None
    width, height = (side // COORDINATE_STEP for side in row["images"][0].size)
    x, y = rng.randrange(width), rng.randrange(height)
    return [value * COORDINATE_STEP for value in (x, y, x + 1, y + 1)]


def largest_box(row: Mapping[str, Any]) -> list[int] | None:
    """The true box of the row's largest lesion, to the nearest multiples of ``COORDINATE_STEP``.

    ``row`` as ``model_view`` gives it; ``None`` for one without lesions.
    """
    if not row["boxes"]:
        return None
    left, top, right, bottom = max(row["boxes"], key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
    (x1, x2), (y1, y2) = _on_grid(left, right), _on_grid(top, bottom)
    return [x1, y1, x2, y2]


def _on_grid(low: float, high: float) -> tuple[int, int]:
    first, last = (round(value / COORDINATE_STEP) for value in (low, high))
    if first == last:
        first, last = floor(low / COORDINATE_STEP), ceil(high / COORDINATE_STEP)
    return first * COORDINATE_STEP, last * COORDINATE_STEP


class AnswerCollator:
    """Chats with their answers as a padded batch; the loss sees the answer tokens alone."""

    def __init__(self, processor: Any, style: AnswerStyle) -> None:
        self.processor, self.style = processor, style

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """``examples`` as ``AlignmentMix`` gives them: ``row`` (a ``model_view``), ``answers``,
        ``box``.
        """
        texts = [
            answer_text(example["answers"], example["box"], self.style) for example in examples
        ]
        chats = [
            [*to_messages(example["row"], self.style), {"role": "assistant", "content": text}]
            for example, text in zip(examples, texts, strict=True)
        ]
        batch = self.processor.apply_chat_template(
            chats,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        )
        labels = torch.full_like(batch["input_ids"], IGNORED)
        tokenizer = self.processor.tokenizer
        after = len(tokenizer("\n")["input_ids"])  # the template's newline behind <|im_end|>
        for row, text in enumerate(texts):
            span = len(tokenizer(text + tokenizer.eos_token)["input_ids"])
            end = labels.shape[1] - after
            labels[row, end - span : end] = batch["input_ids"][row, end - span : end]
        return dict(batch) | {"labels": labels}


def align(
    model: Any,
    processor: Any,
    perception: Dataset,
    diagnosis: Dataset,
    plan: AlignmentPlan,
    *,
    style: AnswerStyle,
    seed: int,
    out: Path,
    checkpointing: bool = False,
) -> pd.DataFrame:
    """Train ``model`` in place: naming, then answering.

    Args:
        model: a ``QoQForConditionalGeneration``.
        processor: its processor.
        perception: rows of the ``align`` split.
        diagnosis: rows of the ``train`` split.
        plan: steps, batch sizes and learning rate of both phases.
        style: how answers are asked for.
        seed: decides the examples and their order.
        out: folder for the trainer's own files.
        checkpointing: compute each layer a second time for its gradients, to save memory.

    Returns:
        The log: one row per ten steps with ``phase``, ``step`` and ``loss``.
    """
    views = [model_view(row, processor.image_processor) for row in perception]
    if checkpointing:
        # Not the reentrant kind: that asks gradients of inputs, and so of a frozen vision tower.
        model.gradient_checkpointing_enable({"use_reentrant": False})
    logs = []
    if plan.naming_steps:
        names = sorted({row["answers"][0] for row in views})
        logs += _train(
            Naming(model, processor.tokenizer, names),
            NamingMix(views, plan.naming_steps * plan.naming_batch, seed),
            NamingCollator(processor.image_processor, names),
            ("naming", plan.naming_steps, plan.naming_batch, plan.learning_rate, seed, out),
        )
    mix = AlignmentMix(
        views,
        [model_view(row, processor.image_processor) for row in diagnosis],
        plan.answering_steps * plan.answering_batch,
        seed,
    )
    logs += _train(
        model,
        mix,
        AnswerCollator(processor, style),
        ("answering", plan.answering_steps, plan.answering_batch, plan.learning_rate, seed, out),
    )
    if checkpointing:
        model.gradient_checkpointing_disable()
    return pd.DataFrame(logs)


def _train(
    module: Any,
    data: TorchDataset,
    collator: Callable[..., Any],
    phase: tuple[str, int, int, float, int, Path],
) -> list[dict[str, Any]]:
    name, steps, batch_size, learning_rate, seed, out = phase
    trainer = Trainer(
        model=module,
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(steps // 20, 1),
            logging_steps=min(10, steps),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            bf16=torch.cuda.is_available()
            and any(weight.dtype == torch.bfloat16 for weight in module.parameters()),
            seed=seed,
        ),
        data_collator=collator,
        train_dataset=data,
        callbacks=[PlainProgress(name)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{"phase": name, "step": e["step"], "loss": float(e["loss"])} for e in history]


def _by_domain(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["domain"]].append(row)
    return dict(groups)
