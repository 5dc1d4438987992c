"""Published bases in miniature: folders in the very layout that Qwen2.5-VL has on the Hub."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
# Text settings lie flat beside the rest and M-RoPE has its old name, as in the published files.
SMALL = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "bos_token_id": None,
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "sliding_window": 32768,
    "vision_config": {
        "depth": 2,
        "hidden_size": 64,
        "in_chans": 3,
        "intermediate_size": 96,
        "num_heads": 4,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    },
}


def hub_base(folder: Path, *, shards: int = 3, fill: float | None = None, **changes: Any) -> Path:
    """Write a Qwen2.5-VL with random weights (or all ``fill``, which is faster) in bfloat16."""
    tokenizer = _tokenizer()
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in {
            "image_token_id": "image_pad",
            "video_token_id": "video_pad",
            "vision_start_token_id": "vision_start",
            "vision_end_token_id": "vision_end",
            "eos_token_id": "im_end",
        }.items()
    }
    config = {**SMALL, **ids, **changes}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.05}))
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    _write_shards(folder, _shapes(config), shards, fill)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={mark: n for n, mark in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )


def _shapes(config: dict[str, Any]) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
    names = {name: re.sub(r"^model\.visual\.", "visual.", name) for name in model.state_dict()}
    return {
        re.sub(r"^model\.language_model\.", "model.", names[name]): tensor.shape
        for name, tensor in model.state_dict().items()
    }


def _write_shards(
    folder: Path, shapes: dict[str, torch.Size], shards: int, fill: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    index = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {}
        for name in sorted(shapes)[number::shards]:
            tensor = torch.full(shapes[name], 1.0 if fill is None else fill, dtype=torch.bfloat16)
            if fill is None and "norm" not in name:
                tensor.normal_(std=0.2, generator=generator)
            part[name], index[name] = tensor, file
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
