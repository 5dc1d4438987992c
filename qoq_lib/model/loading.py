"""Model sizes (one dial, ``configs/model/<size>.yaml``), and models with their processor."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from peft import PeftModel, get_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from qoq_lib.data.prompts import AnswerStyle
from qoq_lib.model.configuration_qoq import EcgConfig
from qoq_lib.model.files import (
    ADAPTER_FILE,
    ADAPTER_WEIGHTS_FILE,
    LoadError,
    fetch,
    open_shard,
    open_weights,
    read_json,
    refuse_gaps,
)
from qoq_lib.model.from_base import base_processor
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.pixels import limit_area
from qoq_lib.model.processing_qoq import QoQProcessor
from qoq_lib.model.tiny import tiny_model, tiny_processor
from qoq_lib.model.tuning import Part, Tuning, check_tuning
from qoq_lib.runs import project_root

__all__ = ["LoadError", "ModelSize", "check_machine", "load_model", "load_size", "tiny_model"]


_UNFIT = (
    "holds an adapter whose weights, settings and base do not belong together: copy or download "
    "the folder again."
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ImageArea(_Part):
    """Smallest and largest area in pixels at which the model sees an image.

    28 x 28 pixels are one token; a largest area under four times the smallest leaves images that
    fit no size in between.
    """

    smallest: int = Field(ge=28 * 28)
    largest: int

    @model_validator(mode="after")
    def _apart(self) -> "ImageArea":
        if self.largest < 4 * self.smallest:
            raise ValueError(f"largest must be at least 4 x smallest = {4 * self.smallest}")
        return self


class AlignmentPlan(_Part):
    """Steps, batch sizes and learning rate of notebook 02."""

    naming_steps: int = Field(ge=0)
    naming_batch: int = Field(ge=1)
    answering_steps: int = Field(ge=0)
    answering_batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0)


class RateByTuning(_Part):
    """Learning rates of full tuning, and of LoRA and QLoRA."""

    full: PositiveFloat
    adapters: PositiveFloat


class TrainingPlan(_Part):
    """Budget and learning rate of notebook 03; ``questions_per_step`` x ``rollouts`` a step."""

    steps: int = Field(ge=1)
    questions_per_step: int = Field(ge=1)
    rollouts: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    learning_rate: PositiveFloat | RateByTuning
    beta: float = Field(ge=0)

    def rate(self, tuning: Tuning) -> float:
        """The learning rate of this tuning."""
        if isinstance(self.learning_rate, float):
            return self.learning_rate
        return self.learning_rate.full if tuning == "full" else self.learning_rate.adapters


class ModelSize(_Part):
    """Everything that ``model_size`` decides; see ``configs/model/tiny.yaml`` for the meaning."""

    name: str
    base: str
    tuning: Tuning
    trainable: list[Part]
    answer_style: AnswerStyle
    dtype: Literal["float32", "bfloat16"]
    needs_gpu: bool
    # Left out of a dump where it is as ever: a study knows its runs by the dump's hash.
    pixels: ImageArea | None = Field(default=None, exclude_if=lambda area: area is None)
    max_completion_length: int | None = Field(ge=1)
    prediction_batch: int = Field(default=64, ge=1, exclude_if=lambda count: count == 64)
    alignment: AlignmentPlan
    training: TrainingPlan


def load_size(name: str) -> ModelSize:
    """Read ``configs/model/<name>.yaml``; ``LoadError`` for an unknown size or a wrong value."""
    values = read_config("model", name)
    return read_size({"name": name, **values}, f"configs/model/{name}.yaml")


def read_size(values: dict[str, Any], source: str) -> ModelSize:
    """A size from its values; ``LoadError`` says what is wrong in ``source``."""
    try:
        return ModelSize(**values)
    except ValidationError as error:
        first = error.errors()[0]
        # Of a field that takes several types pydantic adds which of them it tried.
        where = ".".join(str(step) for step in first["loc"] if step != "constrained-float")
        given = "missing" if first["type"] == "missing" else repr(first["input"])
        raise LoadError(f"{source}: {where} is {given}: {first['msg']}.") from error


def image_area(size: ModelSize) -> ImageArea:
    """The size's image area, or that of its base's processor; ``LoadError`` if that is missing."""
    if size.pixels is not None:
        return size.pixels
    processor = tiny_processor() if size.base == "tiny" else base_processor(size.base)
    bounds = processor.image_processor.size
    return ImageArea(smallest=bounds["shortest_edge"], largest=bounds["longest_edge"])


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
    """Look, before any heavy work, whether ``size`` can be had here.

    Raises:
        LoadError: the GPU is missing, or the folder of the weights.
        HubError: the Hub cannot give the weights.
        TuningError: the way of tuning is unknown, or needs a GPU that is not there.
    """
    if size.needs_gpu and not torch.cuda.is_available():
        raise LoadError(
            f"Model size {size.name!r} ({size.base}) needs an NVIDIA GPU and none is visible: run "
            "it on a GPU machine, or use model_size tiny here."
        )
    check_tuning(size.tuning, size.trainable)
    if size.base != "tiny":
        fetch(size.base, patterns=["config.json"])


def load_base(
    size: ModelSize, seed: int, labels: Iterable[str] = ()
) -> tuple[QoQForConditionalGeneration, QoQProcessor]:
    """The untrained start of a size: ``tiny_model`` or the published base with a fresh ECG path.

    ``labels`` are the data's; only the tiny tokenizer is made for them.
    """
    if size.base == "tiny":
        model, processor = tiny_model(seed, labels, size.answer_style)
    else:
        dtype = getattr(torch, size.dtype)
        model = QoQForConditionalGeneration.from_base(size.base, dtype=dtype, seed=seed)
        processor = base_processor(size.base)
    if size.pixels is not None:
        limit_area(processor.image_processor, size.pixels.smallest, size.pixels.largest)
    return model, processor


def load_model(
    name_or_path: str | Path,
    revision: str | None = None,
    *,
    quantization_config: Any = None,
    pixels: ImageArea | None = None,
) -> tuple[QoQForConditionalGeneration, QoQProcessor]:
    """A QoQ checkpoint (folder or Hub id) and its processor, in evaluation mode.

    Where the checkpoint is an adapter, its base is loaded and the adapter merged into it.

    Args:
        name_or_path: folder or Hub id.
        revision: branch, tag or commit of the Hub repository.
        quantization_config: as ``tuning.quantization`` gives it, for a model to train with QLoRA.
        pixels: areas at which the processor shows images; ``None``: as saved with the checkpoint.

    Raises:
        LoadError: there is no such folder, or a file of it is missing, truncated or broken.
        HubError: the Hub cannot give it; ``GatedError``, ``MissingError``, ``OfflineError`` and
            ``TokenError`` tell why.
    """
    folder = fetch(str(name_or_path), revision)
    processor = load_processor(folder, pixels)
    if not (folder / ADAPTER_FILE).is_file():
        return _read_weights(folder, quantization_config), processor
    if quantization_config is not None:
        raise LoadError(
            f"{folder} is an adapter, which cannot be merged into 4-bit weights: save what "
            "load_model gives for it as a checkpoint of its own and start from that."
        )
    return _merged(folder, processor), processor


def load_processor(folder: Path, pixels: ImageArea | None = None) -> QoQProcessor:
    """The processor in a checkpoint folder, showing images at ``pixels`` or as it was saved.

    Raises ``LoadError`` where there is no readable one.
    """
    try:
        processor = QoQProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(
            f"{folder} holds no readable QoQ processor: it is no complete QoQ checkpoint, so copy "
            "or download it again."
        ) from error
    if pixels is not None:
        limit_area(processor.image_processor, pixels.smallest, pixels.largest)
    return processor


def _read_weights(folder: Path, quantization_config: Any = None) -> QoQForConditionalGeneration:
    kind = read_json(folder / "config.json").get("model_type")
    if kind != QoQForConditionalGeneration.config_class.model_type:
        raise LoadError(f"{folder} holds a model of type {kind!r}, not a QoQ checkpoint.")
    open_weights(folder)  # a missing or truncated file is named here, before anything is loaded
    model, report = QoQForConditionalGeneration.from_pretrained(
        folder,
        quantization_config=quantization_config,
        ignore_mismatched_sizes=True,  # refused below, in one sentence
        output_loading_info=True,
    )
    refuse_gaps(folder, report)
    return model.eval()


def _merged(folder: Path, processor: QoQProcessor) -> QoQForConditionalGeneration:
    """The adapter in ``folder`` merged into the base that it names."""
    settings = read_json(folder / ADAPTER_FILE)
    # A published adapter holds the modules trained in full a second time, under transformers' name.
    names = open_shard(folder / ADAPTER_WEIGHTS_FILE).keys()
    held = {name for name in names if ".modules_to_save." not in name}
    base = _base_of_adapter(folder, settings, processor.ecg_tokens)
    try:
        model = PeftModel.from_pretrained(base, folder)
        complete = held == set(get_peft_model_state_dict(model, save_embedding_layers=False))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # peft's ways to say no
        raise LoadError(f"{folder} {_UNFIT}") from error
    if not complete:
        raise LoadError(f"{folder} {_UNFIT}")
    return model.merge_and_unload().eval()


def _base_of_adapter(
    folder: Path, settings: dict[str, Any], ecg_tokens: int
) -> QoQForConditionalGeneration:
    name = settings.get("base_model_name_or_path")
    if not name:
        raise LoadError(f"{folder / ADAPTER_FILE} names no base model to put the adapter on.")
    # A run folder that was moved still holds the base beside the adapter.
    beside = folder.resolve().parent / Path(name).name
    found = str(beside if beside.is_dir() and not Path(name).is_dir() else name)
    source = fetch(found, settings.get("revision"))
    if read_json(source / "config.json").get("model_type") != "qwen2_5_vl":
        return _read_weights(source)
    if not {"ecg_encoder", "ecg_projector"} <= set(settings.get("modules_to_save") or ()):
        raise LoadError(
            f"{folder} holds no ECG encoder and projector, and its base {name} has none: load the "
            "checkpoint that the adapter was trained from instead."
        )
    ecg_config = EcgConfig(out_tokens=ecg_tokens)
    return QoQForConditionalGeneration.from_base(str(source), ecg_config=ecg_config)
