"""Batched generation over a split: one prediction row per question."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset

from qoq_lib.data.prompts import AnswerStyle, to_messages
from qoq_lib.model.pixels import model_view
from qoq_lib.runs import progress

COLUMNS = ("id", "domain", "dataset", "patient_id", "options", "answers")


@torch.no_grad()
def predict(
    model: Any,
    processor: Any,
    rows: Dataset,
    *,
    style: AnswerStyle,
    max_new_tokens: int,
    temperature: float = 0.0,
    batch_size: int = 64,
) -> pd.DataFrame:
    """One completion of every row: greedy at ``temperature`` 0, sampled above (torch's seed).

    A model on the CPU moves to the GPU where there is one.

    Returns:
        One row per question: ``id, domain, dataset, patient_id, options, answers, completion``.
    """
    if torch.cuda.is_available() and model.device.type == "cpu":
        model.to("cuda")
    model.eval()
    records = []
    starts = range(0, len(rows), batch_size)
    for start in progress(starts, label="predict (batches)"):
        batch = [
            model_view(rows[index], processor.image_processor)
            for index in range(start, min(start + batch_size, len(rows)))
        ]
        completions = complete(model, processor, batch, style, max_new_tokens, temperature)
        for row, completion in zip(batch, completions, strict=True):
            records.append({name: row[name] for name in COLUMNS} | {"completion": completion})
    return pd.DataFrame(records, columns=[*COLUMNS, "completion"])


def complete(
    model: Any,
    processor: Any,
    views: list[dict[str, Any]],
    style: AnswerStyle,
    max_new_tokens: int,
    temperature: float = 0.0,
) -> list[str]:
    """Completions of rows already at the model's image size (``model_view``)."""
    inputs = processor.apply_chat_template(
        [to_messages(view, style) for view in views],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    ).to(model.device)
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    output = model.generate(**inputs, **sampling, max_new_tokens=max_new_tokens)
    new = output[:, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.batch_decode(new, skip_special_tokens=True)


def save_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Write parquet under a temporary name, then rename it."""
    part = path.with_suffix(".part")
    predictions.to_parquet(part, index=False)
    part.replace(path)
