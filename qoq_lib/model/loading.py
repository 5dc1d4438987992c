"""Model sizes (one dial, ``configs/model/<size>.yaml``), and models with their processor."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from pydantic import BaseModel, ConfigDict
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from qoq_lib.data.prompts import AnswerStyle
from qoq_lib.model.configuration_qoq import EcgConfig, QoQConfig
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.processing_qoq import ECG_TOKEN, QoQProcessor, suppressed_token_ids
from qoq_lib.model.tiny import tiny_model
from qoq_lib.runs import project_root

__all__ = ["LoadError", "ModelSize", "check_machine", "load_model", "load_size", "tiny_model"]


class LoadError(RuntimeError):
    """A model cannot be loaded here; the message says what is missing."""


class AlignmentPlan(BaseModel):
    """Steps, batch sizes and learning rate of notebook 02."""

    model_config = ConfigDict(extra="forbid")
    naming_steps: int
    naming_batch: int
    answering_steps: int
    answering_batch: int
    learning_rate: float


class TrainingPlan(BaseModel):
    """Budget and learning rate of notebook 03; ``questions_per_step`` x ``rollouts`` a step."""

    model_config = ConfigDict(extra="forbid")
    steps: int
    questions_per_step: int
    rollouts: int
    micro_batch: int
    learning_rate: float
    beta: float


class ModelSize(BaseModel):
    """Everything that ``model_size`` decides; see ``configs/model/tiny.yaml`` for the meaning."""

    model_config = ConfigDict(extra="forbid")
    name: str
    base: str
    tuning: Literal["full", "lora"]
    answer_style: AnswerStyle
    dtype: Literal["float32", "bfloat16"]
    needs_gpu: bool
    max_completion_length: int | None
    alignment: AlignmentPlan
    training: TrainingPlan


def load_size(name: str) -> ModelSize:
    """Read ``configs/model/<name>.yaml``; ``LoadError`` for an unknown size."""
    return ModelSize(name=name, **read_config("model", name))


def read_config(kind: str, name: str) -> dict[str, Any]:
    """The values of ``configs/<kind>/<name>.yaml``; ``LoadError`` names the known ones."""
    folder = project_root() / "configs" / kind
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise LoadError(f"Unknown {kind} {name!r}: use one of {known}.")
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    return values


def check_machine(size: ModelSize) -> None:
    """Raise ``LoadError``, before any heavy work, when GPU or weights for ``size`` are missing."""
    if size.needs_gpu and not torch.cuda.is_available():
        raise LoadError(
            f"Model size {size.name!r} ({size.base}) needs an NVIDIA GPU and none is visible: run "
            "it on a GPU machine, or use model_size tiny here."
        )
    if size.base != "tiny":
        _fetch(size.base, None, patterns=["config.json"])


def load_base(
    size: ModelSize, seed: int, labels: Iterable[str] = ()
) -> tuple[QoQForConditionalGeneration, QoQProcessor]:
    """The untrained start of a size: ``tiny_model`` or the published base with a fresh ECG path.

    ``labels`` are the data's; only the tiny tokenizer is made for them.
    """
    if size.base == "tiny":
        return tiny_model(seed, labels)
    return _from_published_base(size.base, getattr(torch, size.dtype))


def load_model(
    name_or_path: str | Path, revision: str | None = None
) -> tuple[QoQForConditionalGeneration, QoQProcessor]:
    """A QoQ checkpoint (folder or Hub id) and its processor, in evaluation mode.

    Raises:
        LoadError: there is no such folder, or the Hub cannot give it.
    """
    folder = _fetch(str(name_or_path), revision)
    try:
        model = QoQForConditionalGeneration.from_pretrained(folder)
        processor = QoQProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise LoadError(f"{name_or_path} is no complete QoQ checkpoint: {error}") from error
    return model.eval(), processor


def _fetch(name: str, revision: str | None, patterns: list[str] | None = None) -> str:
    if Path(name).is_dir():
        return name
    try:
        return snapshot_download(name, revision=revision, allow_patterns=patterns)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise LoadError(
            f"The weights of {name} are neither in a folder of that name nor to be had from the "
            "Hugging Face Hub: check the name, the connection and your access."
        ) from error


def _from_published_base(
    base: str, dtype: torch.dtype
) -> tuple[QoQForConditionalGeneration, QoQProcessor]:
    """Weights of a Qwen2.5-VL with a new ECG encoder, projector and three placeholder tokens."""
    folder = _fetch(base, None)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    marks = [ECG_TOKEN, "<|ecg_start|>", "<|ecg_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks}, False)
    values: dict[str, Any] = AutoConfig.from_pretrained(folder).to_dict()
    values.pop("model_type")
    config = QoQConfig(**values, ecg_config=EcgConfig().to_dict())
    config.ecg_token_id = tokenizer.convert_tokens_to_ids(ECG_TOKEN)
    model = QoQForConditionalGeneration.from_pretrained(folder, config=config, dtype=dtype)
    if len(tokenizer) > config.text_config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    model.generation_config.suppress_tokens = suppressed_token_ids(tokenizer)
    processor = QoQProcessor(AutoImageProcessor.from_pretrained(folder), tokenizer)
    return model, processor
