"""Which parts of the model are trained, and how: in full, or through adapters (LoRA, QLoRA).

The parts are named alike everywhere (``trainable`` in ``configs/model/*.yaml``): the language model
(with its embeddings and output layer), the vision tower, the merger between the two, the ECG
encoder and the ECG projector.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from qoq_lib.runs import OneSentenceError

Tuning = Literal["full", "lora", "qlora"]
Part = Literal["language_model", "vision_tower", "merger", "ecg_encoder", "ecg_projector"]
PARTS: tuple[Part, ...] = get_args(Part)

# Parameter names by part; the first that matches counts, so the merger stands before its tower.
_PARAMETERS: dict[Part, str] = {
    "merger": r"model\.visual\.merger\.",
    "vision_tower": r"model\.visual\.",
    "ecg_encoder": r"model\.ecg_encoder\.",
    "ecg_projector": r"model\.ecg_projector\.",
    "language_model": r"model\.language_model\.|lm_head\.",
}
# Linear layers that get an adapter, by part.
_ADAPTED: dict[Part, str] = {
    "language_model": r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj",
    "vision_tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.\w+_proj)",
    "merger": r"model\.visual\.merger\.mlp\.[02]",  # between them stands a GELU
}
_ECG_PATH: tuple[Part, ...] = ("ecg_encoder", "ecg_projector")


class TuningError(OneSentenceError, ValueError):
    """A way of tuning, or a part, that does not exist or cannot be had here."""


def check_tuning(tuning: str, trainable: Sequence[str]) -> None:
    """Raise ``TuningError``, before any weight is touched, for what ``prepare`` could not do."""
    if tuning not in get_args(Tuning):
        raise TuningError(f"Unknown tuning {tuning!r}: use one of {', '.join(get_args(Tuning))}.")
    unknown = [part for part in trainable if part not in PARTS]
    if unknown:
        raise TuningError(f"Unknown trainable part {unknown[0]!r}: use any of {', '.join(PARTS)}.")
    if not trainable:
        raise TuningError(f"No part is trainable: name at least one of {', '.join(PARTS)}.")
    if tuning != "full" and not set(trainable) & set(_ADAPTED):
        raise TuningError(
            f"tuning {tuning!r} puts adapters on {', '.join(_ADAPTED)}, and none of them is "
            "trainable: name one, or use tuning 'full'."
        )
    if tuning == "qlora" and not (torch.cuda.is_available() and find_spec("bitsandbytes")):
        raise TuningError(
            "tuning 'qlora' needs an NVIDIA GPU and bitsandbytes, and one of them is missing: "
            "install requirements/gpu.txt on a GPU machine, or use tuning 'lora'."
        )


def quantization(tuning: Tuning) -> BitsAndBytesConfig | None:
    """4-bit NormalFloat weights for ``qlora`` (arXiv 2305.14314), nothing for the others.

    The ECG path is trained as it is and the output layer decides the log-probabilities: both keep
    their precision, and so does the vision tower, a small share of the weights.
    """
    if tuning != "qlora":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        # Matched from the start of a module's name.
        llm_int8_skip_modules=["lm_head", "model.visual", *(f"model.{part}" for part in _ECG_PATH)],
    )


def prepare(model: Any, tuning: Tuning, trainable: Sequence[Part]) -> LoraConfig | None:
    """Settle what training changes: exactly the ``trainable`` parts.

    Args:
        model: a ``QoQForConditionalGeneration``. All weights but those trained as they are get
            frozen here; those become float32, as peft's adapters are: bfloat16 would round small
            updates away. (DeepSpeed makes all of a model bfloat16 again that was loaded before it
            was set up, and keeps float32 copies of what is trained itself.)
        tuning: ``full`` changes the weights; ``lora`` and ``qlora`` leave them and train adapters.
        trainable: names of parts.

    Returns:
        The adapters for ``peft.get_peft_model`` or a trainer's ``peft_config``, ``None`` with
        ``full``. The ECG path is new, so its parts are trained in full beside the adapters and
        saved with them.

    Raises:
        TuningError: as ``check_tuning``.
    """
    check_tuning(tuning, trainable)
    whole = [part for part in trainable if tuning == "full" or part in _ECG_PATH]
    for part, parameter in parameters_by_part(model):
        parameter.requires_grad_(part in whole)
        parameter.data = parameter.data.float() if part in whole else parameter.data
    if tuning == "full":
        return None
    return LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules="|".join(_ADAPTED[part] for part in trainable if part in _ADAPTED),
        modules_to_save=[part for part in trainable if part in _ECG_PATH] or None,
    )


def parameters_by_part(model: Any) -> Iterator[tuple[Part, torch.nn.Parameter]]:
    """Every parameter with the part it belongs to; of a model with or without adapters."""
    for name, parameter in model.named_parameters():
        name = name.removeprefix("base_model.model.")
        yield next(p for p, names in _PARAMETERS.items() if re.match(names, name)), parameter
