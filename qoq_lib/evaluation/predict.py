"""Batched answers to a split's questions, in parts that survive a kill.

``qoq_lib.evaluation.ask`` asks any other model of the Hub with it, and answers made elsewhere come
in through ``qoq_lib.evaluation.elsewhere``. All give the same table.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from PIL import Image

from qoq_lib.data.prompts import AnswerStyle
from qoq_lib.evaluation.decoding import DECODING, loaded_from
from qoq_lib.evaluation.likelihood import option_logprobs
from qoq_lib.evaluation.parts import Parts, save_predictions
from qoq_lib.evaluation.prompting import prompt_hash, prompt_inputs, refuse_unaskable, view_of
from qoq_lib.runs import derive_seed, progress

__all__ = ["COLUMNS", "complete", "predict", "row_facts", "save_predictions"]

COLUMNS = (
    *("id", "domain", "dataset", "patient_id", "options", "answers"),
    *("sex", "age_years", "boxes"),
)
_SAMPLED = 64  # values of each tensor that tell one model's weights from another's


@dataclass(frozen=True)
class Settings:
    """How the questions are asked."""

    style: AnswerStyle
    max_new_tokens: int
    temperature: float
    batch_size: int
    seed: int
    logprobs: bool


def predict(
    model: Any,
    processor: Any,
    rows: Dataset,
    *,
    style: AnswerStyle,
    max_new_tokens: int,
    temperature: float = 0.0,
    batch_size: int = 64,
    seed: int = 0,
    logprobs: bool = False,
    path: Path | None = None,
) -> pd.DataFrame:
    """One completion of every row: greedy at ``temperature`` 0, sampled from ``seed`` above.

    A model on the CPU moves to the GPU where there is one.

    Args:
        model: as ``load_model`` or ``any_model.load_any`` give it, with its ``processor``.
        processor: likewise.
        rows: assembled rows.
        style: how the answer is asked for.
        max_new_tokens: at most so many tokens a completion.
        temperature: of sampling.
        batch_size: questions at a time.
        seed: of sampling; each batch has its own, so that a resumed run samples the same.
        logprobs: whether to score each option too (``likelihood.option_logprobs``); of QoQ and
            Qwen2.5-VL models alone.
        path: parquet file to write. The batches are kept beside it until all are there: after a
            kill, the same call goes on with what is missing. Of a finished file, what the same
            weights said to the same prompts in the same way is not asked again.

    Returns:
        One row per question: ``COLUMNS``, ``image_size`` (width and height of the first image as
        the model sees it, which ``boxes`` and ``mask``, PNG bytes, are in the pixels of),
        ``mask``, ``completion``, ``n_tokens``, ``prompt_hash`` (SHA-256 of the chat text and the
        media) and, with ``logprobs``, ``option_logprobs`` in the order of the options. The same in
        every row: ``style``, ``max_new_tokens``, ``temperature`` and ``seed`` as given,
        ``loaded_from`` (``decoding.loaded_from``) and ``weights`` (a hash of the model's weights).

    Raises:
        PredictionsError: the model is none of ours, and rows have an ECG or ``logprobs`` is asked.
    """
    refuse_unaskable(processor, rows, logprobs)
    if torch.cuda.is_available() and model.device.type == "cpu":
        model.to("cuda")
    model.eval()
    settings = Settings(style, max_new_tokens, temperature, batch_size, seed, logprobs)
    weights = weights_fingerprint(model)
    parts = Parts(path, asdict(settings) | {"weights": weights})
    same = {name: getattr(settings, name) for name in DECODING}
    same |= {"loaded_from": loaded_from(model), "weights": weights}
    tables = []
    for start in progress(range(0, len(rows), batch_size), label="predict (batches)"):
        batch = [rows[index] for index in range(start, min(start + batch_size, len(rows)))]
        views = [view_of(row, processor) for row in batch]
        hashes = [prompt_hash(processor, view, style) for view in views]
        said = parts.read(start, hashes)
        if said is None:
            told = _answers(model, processor, views, settings, start)
            said = pd.DataFrame(told).assign(prompt_hash=hashes)
            parts.write(start, said)
        facts = pd.DataFrame([row_facts(view) for view in views])
        tables.append(facts.join(said).assign(**same))
    return parts.join(tables)


def _answers(
    model: Any, processor: Any, views: list[dict[str, Any]], settings: Settings, start: int
) -> dict[str, list[Any]]:
    """``completion``, ``n_tokens`` and maybe ``option_logprobs`` of one batch."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(settings.seed, f"predict/{start}"))
        tokens = _generate(
            model, processor, views, settings.style, settings.max_new_tokens, settings.temperature
        )
    texts = processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    lengths = (tokens != processor.tokenizer.pad_token_id).sum(dim=1).tolist()
    told: dict[str, list[Any]] = {"completion": texts, "n_tokens": lengths}
    if settings.logprobs:
        scores = option_logprobs(model, processor, views, texts, settings.style)
        told["option_logprobs"] = scores
    return told


def complete(
    model: Any,
    processor: Any,
    views: list[dict[str, Any]],
    style: AnswerStyle,
    max_new_tokens: int,
    temperature: float = 0.0,
) -> list[str]:
    """Completions of rows already at the model's image size (``model_view``)."""
    tokens = _generate(model, processor, views, style, max_new_tokens, temperature)
    texts: list[str] = processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts


@torch.no_grad()
def _generate(
    model: Any,
    processor: Any,
    views: Sequence[Mapping[str, Any]],
    style: AnswerStyle,
    max_new_tokens: int,
    temperature: float,
) -> torch.Tensor:
    """New tokens, rows x longest, padded on the right."""
    inputs = prompt_inputs(model, processor, views, style)
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    output = model.generate(**inputs, **sampling, max_new_tokens=max_new_tokens)
    return torch.as_tensor(output[:, inputs["input_ids"].shape[1] :])


def row_facts(view: Mapping[str, Any]) -> dict[str, Any]:
    """``COLUMNS``, ``image_size`` and ``mask`` of a row, in pixels of its images as they are."""
    size = view["images"][0].size if view["images"] else None
    mask = view["mask"] if size else None
    stored = io.BytesIO()
    if mask is not None:
        mask.convert("L").resize(size, Image.Resampling.NEAREST).save(stored, "PNG")
    facts = {name: view[name] for name in COLUMNS}
    return facts | {
        "boxes": [list(map(float, box)) for box in view["boxes"] or []] or None,
        "image_size": list(size) if size else None,
        "mask": stored.getvalue() or None,
    }


def weights_fingerprint(model: Any) -> str:
    """SHA-256 of a few values of every tensor: another for each state of training."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, len(flat) // _SAMPLED)].cpu()
        digest.update(sample.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
