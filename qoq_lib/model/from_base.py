"""QoQ from a published Qwen2.5-VL: the base's weights and a fresh ECG path, or random weights."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils import logging

from qoq_lib.model.configuration_qoq import EcgConfig, QoQConfig
from qoq_lib.model.files import LoadError, fetch, open_weights, read_json, refuse_gaps
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.pixels import image_processor_class
from qoq_lib.model.processing_qoq import ECG_TOKEN, QoQProcessor, suppressed_token_ids
from qoq_lib.model.randomness import seeded

FRESH = ("model.ecg_encoder.", "model.ecg_projector.")
ECG_MARKS = (ECG_TOKEN, "<|ecg_start|>", "<|ecg_end|>")

# The published tokenizers hold 151,665 tokens; their embeddings have rows to spare, so the marks of
# an ECG get the next three. These are the ids of padding, structure and media, never to be sampled.
PUBLISHED_TOKENS = 151_665
PUBLISHED_UNSAMPLED = [151_643, 151_644, *range(151_652, 151_657), *range(151_665, 151_668)]


def _architecture(
    width: int, layers: int, heads: int, kv_heads: int, mlp: int, vocabulary: int, **others: Any
) -> dict[str, Any]:
    """A ``config.json`` as published; what the sizes share stands here once."""
    return {
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [16, 24, 24],
            },
        },
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": others.get("vision_mlp", 3420),
            "num_heads": 16,
            "out_hidden_size": width,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        "tie_word_embeddings": others.get("tied", False),
    }


ARCHITECTURES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _architecture(2048, 36, 16, 2, 11_008, 151_936, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _architecture(3584, 28, 28, 4, 18_944, 152_064),
    "Qwen/Qwen2.5-VL-32B-Instruct": _architecture(
        5120, 64, 40, 8, 27_648, 152_064, vision_mlp=3456
    ),
}
"""The published configurations (Hub, ``config.json``), to build a size where nothing can be had."""


def from_base(
    name: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    device_map: Any = None,
    ecg_config: EcgConfig | None = None,
    random_weights: bool = False,
    seed: int = 0,
) -> QoQForConditionalGeneration:
    """A Qwen2.5-VL with an ECG path that is still to be trained, in evaluation mode.

    Weights are read tensor by tensor and converted on the way, so that memory holds the model and
    little more. The ECG placeholder and the marks around it get the mean embedding of all tokens.

    Args:
        name: folder or Hub id of a Qwen2.5-VL; with ``random_weights`` one of ``ARCHITECTURES``.
        revision: branch, tag or commit of the Hub repository.
        dtype: of the weights in memory, whatever the files hold.
        device_map: as in ``from_pretrained``: a device, "auto", or devices by module name.
        ecg_config: sizes of the ECG path; ECG-JEPA's by default.
        random_weights: the same architecture with nothing downloaded, to time and to test.
        seed: decides the ECG path's weights, and all others where they are random.

    Raises:
        LoadError: the base cannot be had, is no Qwen2.5-VL, or a file of it is missing or broken.
    """
    if random_weights:
        config, weights = _published_config(name), {}
    else:
        folder = fetch(name, revision)
        config, weights = _config_of(folder), _renamed(open_weights(folder))
    config.ecg_config = ecg_config or EcgConfig()
    with seeded(seed), _quiet():
        model, report = QoQForConditionalGeneration.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=dtype,
            device_map=device_map,
            ignore_mismatched_sizes=True,  # refused below, in one sentence
            output_loading_info=True,
        )
    model.config.name_or_path = model.name_or_path = name  # what an adapter notes as its base
    if random_weights:
        model.generation_config.suppress_tokens = PUBLISHED_UNSAMPLED
        model.generation_config.pad_token_id = PUBLISHED_UNSAMPLED[0]
        _fill_new_rows(model, PUBLISHED_TOKENS, range(PUBLISHED_TOKENS, PUBLISHED_TOKENS + 3))
        return model
    refuse_gaps(name, report, FRESH)
    _take_tokens(model, folder)
    return model


def base_config(name: str) -> QoQConfig:
    """The configuration of a base with the default ECG path; of a known one, without a download.

    Raises:
        LoadError: the base cannot be had, or is no Qwen2.5-VL.
    """
    if name in ARCHITECTURES:
        return _published_config(name)
    return _config_of(fetch(name, patterns=["config.json"]))


def base_processor(
    name: str, revision: str | None = None, ecg_tokens: int = EcgConfig.out_tokens
) -> QoQProcessor:
    """The processor for ``from_base``'s model: the base's own parts, with the marks of an ECG.

    ``ecg_tokens`` must be the ``out_tokens`` of the model's ``ecg_config``.

    Raises:
        LoadError: the base cannot be had, or its tokenizer or image processor is missing or broken.
    """
    folder = fetch(name, revision, patterns=["*.json", "*.txt", "*.jinja"])
    tokenizer = _tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(ECG_MARKS)}, False)
    try:
        images = image_processor_class().from_pretrained(folder)
        return QoQProcessor(images, tokenizer, ecg_tokens=ecg_tokens)
    except (OSError, ValueError) as error:
        raise LoadError(
            f"{folder} holds no readable image processor: copy or download it again."
        ) from error


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, padding_side="left")
    except (OSError, ValueError) as error:
        raise LoadError(
            f"{folder} holds no readable tokenizer: copy or download it again."
        ) from error


def _published_config(name: str) -> QoQConfig:
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise LoadError(f"The architecture of {name!r} is not known here: use one of {known}.")
    return QoQConfig(**ARCHITECTURES[name], ecg_token_id=PUBLISHED_TOKENS)


def _config_of(folder: Path) -> QoQConfig:
    values = read_json(folder / "config.json")
    kind = values.pop("model_type", None)
    if kind != "qwen2_5_vl":
        raise LoadError(f"{folder} holds a model of type {kind!r}: the base must be a Qwen2.5-VL.")
    return QoQConfig(**{key: value for key, value in values.items() if key != "architectures"})


def _renamed(weights: dict[str, Any]) -> dict[str, Any]:
    """Names of the published files (``visual.*``, ``model.layers.*``) as the classes have them.

    transformers renames for its own classes alone; and, told the mapping, it would save our
    checkpoints under the old names, which nothing but this function could load again.
    """
    old_text = re.compile(r"^model\.(?!language_model\.|visual\.)")
    return {
        re.sub(r"^visual\.", "model.visual.", old_text.sub("model.language_model.", name)): tensor
        for name, tensor in weights.items()
    }


def _take_tokens(model: QoQForConditionalGeneration, folder: Path) -> None:
    """Rows and settings that follow from the base's tokenizer and generation settings."""
    tokenizer = _tokenizer(folder)
    known = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": list(ECG_MARKS)}, False)
    if len(tokenizer) > model.config.text_config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = tokenizer.convert_tokens_to_ids(list(ECG_MARKS))
    _fill_new_rows(model, known, ids)
    model.config.ecg_token_id = model.model.config.ecg_token_id = ids[0]
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.generation_config.suppress_tokens = suppressed_token_ids(tokenizer)


@torch.no_grad()
def _fill_new_rows(model: QoQForConditionalGeneration, known: int, ids: Any) -> None:
    """The mean of the ``known`` tokens' rows into the rows ``ids``, of input and output."""
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = module.weight[:known]
        # In blocks: a float32 copy of all rows at once would be an eighth of a 7B model.
        total = sum(block.float().sum(dim=0) for block in rows.split(8192))
        module.weight[list(ids)] = (total / known).to(module.weight)


@contextmanager
def _quiet() -> Iterator[None]:
    """No table of missing weights: the ECG path is meant to be new, and gaps are errors here."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
