"""A Qwen2.5-VL of under three million parameters with an ECG path, made by code alone.

Small in size, not in kind: the same classes, chat template, processor and vocabulary layout as the
published sizes, so a run on a laptop takes the code path of a run at 7B.
"""

from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from qoq_lib.data.phantom import sentences, words
from qoq_lib.data.prompts import (
    ANSWER_FORMAT,
    COORDINATE_STEP,
    REGION_END,
    REGION_START,
    AnswerStyle,
)
from qoq_lib.domains import DOMAIN_NAMES, DOMAINS

from .configuration_qoq import EcgConfig, QoQConfig
from .modeling_qoq import QoQForConditionalGeneration
from .pixels import image_processor_class
from .processing_qoq import (
    ECG_TOKEN,
    IMAGE_TOKEN,
    UNSAMPLED_TOKENS,
    QoQProcessor,
    suppressed_token_ids,
)
from .randomness import seeded

VOCABULARY_SIZE = 768
PATCH = 28  # pixels: side of a merged patch
IMAGE_SIDE = 2 * PATCH
WIDTH = 128


def tiny_model(
    seed: int = 0, labels: Iterable[str] = (), style: AnswerStyle = "brief"
) -> tuple[QoQForConditionalGeneration, QoQProcessor]:
    """Random weights, all three modalities, float32 on the CPU; same arguments, same bytes.

    ``labels`` become one token each, as the phantom's are: so small a model cannot learn to spell.
    Nor can it count: for the style ``located`` each corner of a box is one token, too.
    """
    processor = tiny_processor(labels, style)
    with seeded(seed):
        model = QoQForConditionalGeneration(_config(processor.tokenizer)).eval()
    generation = model.generation_config
    generation.eos_token_id = processor.tokenizer.eos_token_id
    generation.pad_token_id = processor.tokenizer.pad_token_id
    generation.suppress_tokens = suppressed_token_ids(processor.tokenizer)
    return model, processor


def tiny_processor(labels: Iterable[str] = (), style: AnswerStyle = "brief") -> QoQProcessor:
    """Images of 56 px a side or near it, byte-level BPE trained on the package's own prompts.

    The bounds lie apart so that an image that is not square has a size between them: with equal
    ones each resize of it would ask for another size.
    """
    return QoQProcessor(
        image_processor=image_processor_class()(
            size={"shortest_edge": PATCH**2, "longest_edge": IMAGE_SIDE * (IMAGE_SIDE + PATCH)}
        ),
        tokenizer=_tokenizer(labels, style),
    )


def _tokenizer(labels: Iterable[str], style: AnswerStyle) -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_end|>", *UNSAMPLED_TOKENS]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special[2:],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    # One token a label: answers stay short and copying an option is copying one token.
    # A label takes the space before it in, so that it is the same token in the list of options.
    marks = [AddedToken(mark, normalized=False) for mark in ("\\boxed{", "<think>", "</think>")]
    names = dict.fromkeys([*words(), *sorted(labels)])
    whole = [AddedToken(name, lstrip=True, single_word=True, normalized=False) for name in names]
    tokenizer.add_tokens(marks + whole)
    if style == "located":
        tokenizer.add_tokens([AddedToken(text, normalized=False) for text in _box_fragments()])
    return tokenizer


def _box_fragments() -> list[str]:
    """The request for boxes, and what they are written with: a token per corner.

    The second corner takes the end of the block along. A corner follows the other at once, so that
    a small model sees what makes a box valid.
    """
    side = range(0, IMAGE_SIDE + PATCH + 1, COORDINATE_STEP)
    corners = [f"{x}, {y}" for x in side for y in side]
    first, second = ([corner + end for corner in corners] for end in (", ", REGION_END))
    return [ANSWER_FORMAT["located"], REGION_START, *first, *second]


def _corpus() -> list[str]:
    stems = [
        f"{DOMAINS[name].title}: which {kind}?\nOptions: pneumonia; normal\n"
        for name in DOMAIN_NAMES
        for kind in ("diagnosis", "pattern is visible")
    ]
    digits = [f'[{{"bbox_2d": [{n}, {n + 1}], "label": ""}}]' for n in range(0, 112, 7)]
    reports = [f"Report: {text}\n" for text in sentences()]
    formats = [ANSWER_FORMAT["brief"], ANSWER_FORMAT["reasoning"]]
    chat = ["user\n", "assistant\n", "Woman of 56, Man of 72,", *formats]
    return [*stems * 4, *reports * 4, *digits, *chat * 20]


def _config(tokenizer: PreTrainedTokenizerFast) -> QoQConfig:
    token = tokenizer.convert_tokens_to_ids
    return QoQConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_heads": 4,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0, 1],
        },
        ecg_config=EcgConfig(hidden_size=64, depth=2, num_heads=4, mlp_ratio=2.0).to_dict(),
        image_token_id=token(IMAGE_TOKEN),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        ecg_token_id=token(ECG_TOKEN),
        tie_word_embeddings=True,
        dtype=torch.float32,
    )
