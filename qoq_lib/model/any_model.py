"""Any model that answers about images, to be asked the questions that a QoQ model is asked."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor

from qoq_lib.model.files import ADAPTER_FILE, LoadError, fetch, read_json, refuse_gaps
from qoq_lib.model.from_base import base_processor, from_base
from qoq_lib.model.loading import load_model
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration

_REFUSALS = (ImportError, KeyError, OSError, SafetensorError, TypeError, ValueError)


def load_any(name: str, revision: str | None = None) -> tuple[Any, Any]:
    """A model and its processor, in evaluation mode.

    A QoQ checkpoint is loaded by ``load_model``; a Qwen2.5-VL becomes a QoQ model whose ECG path is
    untrained; anything else stays as transformers' own classes open it, with its own processor and
    chat template. Code that a repository brings along is never run.

    Args:
        name: folder or Hub id.
        revision: branch, tag or commit of the Hub repository.

    Raises:
        LoadError: there is no such folder, a file of it is missing or broken, or transformers has
            no class of its own for it that takes images, text and a chat.
        HubError: the Hub cannot give it.
    """
    folder = fetch(name, revision)
    adapter = (folder / ADAPTER_FILE).is_file()
    kind = None if adapter else read_json(folder / "config.json").get("model_type")
    if adapter or kind == QoQForConditionalGeneration.config_class.model_type:
        return load_model(folder)
    if kind == "qwen2_5_vl":
        print(f"{name} knows no ECG: it is asked about them through an untrained ECG path.")
        return from_base(str(folder)), base_processor(str(folder))
    return _stock(folder)


def _stock(folder: Path) -> tuple[Any, Any]:
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # refused below, in one sentence
            output_loading_info=True,
        )
    except _REFUSALS as error:
        reason = str(error).strip().partition("\n")[0]
        raise LoadError(
            f"{folder} holds no model of images and text that transformers can open by itself: "
            f"{reason}"
        ) from error
    # What a published file holds beyond the model is transformers' to judge; gaps would be random.
    refuse_gaps(folder, {**report, "unexpected_keys": ()})
    if not (hasattr(processor, "image_processor") and processor.chat_template):
        raise LoadError(
            f"{folder} holds no image processor with a chat template, so there is no way to ask "
            "it: use the instruction-tuned form of this model."
        )
    tokenizer = processor.tokenizer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # batches need one
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), processor
