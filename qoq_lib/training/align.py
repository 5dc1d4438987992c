"""Alignment: teach a model to see in every domain and to answer in the format, not to diagnose.

What alignment teaches decides whether RL can learn at all. Trained on clean diagnoses most groups
have no reward variance left; trained on noise the policy collapses to one answer. So three quarters
of the examples are perception questions (which pattern is visible?) with true labels, balanced over
domains, and one quarter show the diagnosis format with labels drawn uniformly from the options: the
policy sees, knows format and options, and is undecided - the state of a general base model.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from qoq_lib.data.prompts import AnswerStyle, to_messages
from qoq_lib.model.pixels import model_view

FORMAT_SHARE = 0.25
IGNORED = -100  # label id that the loss leaves out


class AlignmentMix(TorchDataset):
    """Example i is a function of (seed, i) alone: perception, or format with a random label.

    Args:
        perception: rows whose answers are taught.
        format_rows: diagnosis rows whose questions are shown with labels drawn from the options.
        length: number of examples, optimiser steps x batch size.
    """

    def __init__(
        self,
        perception: Sequence[Mapping[str, Any]],
        format_rows: Sequence[Mapping[str, Any]],
        length: int,
        seed: int,
    ) -> None:
        self.perception, self.format_rows = _by_domain(perception), _by_domain(format_rows)
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = random.Random(f"{self.seed}/{index}")
        if self.format_rows and rng.random() < FORMAT_SHARE:
            row = rng.choice(self.format_rows[rng.choice(sorted(self.format_rows))])
            return {"row": row, "answers": [rng.choice(row["options"])]}
        row = rng.choice(self.perception[rng.choice(sorted(self.perception))])
        return {"row": row, "answers": row["answers"]}


class AnswerCollator:
    """Chats with their answers as a padded batch; the loss sees the answer tokens alone."""

    def __init__(self, processor: Any, style: AnswerStyle) -> None:
        self.processor, self.style = processor, style

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """``examples`` as ``AlignmentMix`` gives them; rows are ``model_view``s."""
        texts = [f"\\boxed{{{', '.join(example['answers'])}}}" for example in examples]
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
    format_rows: Dataset,
    out: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    style: AnswerStyle,
    seed: int,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict[str, float]]:
    """Train ``model`` in place and return the log (one dict a logging step, with ``loss``)."""
    image_processor = processor.image_processor
    mix = AlignmentMix(
        [model_view(row, image_processor) for row in perception],
        [model_view(row, image_processor) for row in format_rows],
        steps * batch_size,
        seed,
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(steps // 20, 1),
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            seed=seed,
        ),
        data_collator=AnswerCollator(processor, style),
        train_dataset=mix,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def _by_domain(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["domain"]].append(row)
    return dict(groups)
