"""A model of another architecture than ours, made by code: LLaVA, small, with random weights."""

from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from qoq_lib.model.randomness import seeded
from qoq_lib.model.tiny import tiny_processor

TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SIDE, PATCH = 28, 14


def tiny_llava(folder: Path, template: str | None = TEMPLATE) -> Path:
    """A checkpoint as published: model, tokenizer, image processor and its own chat template."""
    tokenizer = tiny_processor().tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}, False)
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    marks = {"patch_size": PATCH, "num_additional_image_tokens": 1}
    LlavaProcessor(
        images,
        tokenizer,
        vision_feature_select_strategy="default",
        chat_template=template,
        **marks,
    ).save_pretrained(folder)
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=SIDE, patch_size=PATCH, num_hidden_layers=2, **shared
        ),
        text_config=LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=2, **shared),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        dtype=torch.float32,
    )
    with seeded(0):
        model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    return folder
