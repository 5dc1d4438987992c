"""TRL's ``GRPOTrainer`` and ``DRPOTrainer`` over one model, the same questions and settings.

Weights are random, so nothing is downloaded: the published architectures, and for their text the
tiny model's tokenizer, filled up with invented words until every token the model can sample says
something. Only image questions: TRL's trainer would drop an ECG.
"""

import copy
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from qoq_lib.data.phantom import make_phantom, words
from qoq_lib.data.prompts import to_messages
from qoq_lib.model.loading import ModelSize, load_size, tiny_model
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.pixels import model_view
from qoq_lib.model.processing_qoq import ECG_TOKEN, IMAGE_TOKEN, suppressed_token_ids
from qoq_lib.model.tiny import PATCH, tiny_processor
from qoq_lib.model.tuning import prepare
from qoq_lib.training.arguments import grpo_config
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.generation.engines import loadable_by_vllm, transformers_engine
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.methods import load_method
from qoq_lib.training.questions import question_dataset
from qoq_lib.training.rewards import attainable, reward_functions
from qoq_lib.training.rollouts import RolloutWriter
from qoq_lib.training.trainer import DRPOTrainer
from step.clock import METHODS, OWN_METHODS, Stopwatch, attach, timed
from step.work import Work

IMAGE_SHARE = 0.53  # of a prompt's tokens: 644 x 644 pixels in a prompt of 1,000
PHANTOM_ROWS = 180


@dataclass(frozen=True)
class Settings:
    """What is measured, the same for both trainers; ``steps`` optimiser steps are a block."""

    size: str
    questions: int
    rollouts: int
    prompt_tokens: int
    new_tokens: int
    micro_batch: int
    steps: int
    engine: Literal["transformers", "vllm"] = "transformers"


@dataclass(frozen=True)
class Timed:
    """A trainer, its stopwatch, and what its passes cost."""

    trainer: GRPOTrainer
    watch: Stopwatch
    work: Work


class PromptError(ValueError):
    """The prompt is too short for the question; the message says how long it must be."""


def make_trainers(settings: Settings, device: torch.device, out: Path) -> dict[str, Timed]:
    """Both trainers by class name, side by side on ``device``.

    With adapters they share the frozen weights, so one GPU holds them once.

    Raises:
        PromptError: the question alone is longer than ``prompt_tokens``.
    """
    job = _job(settings, out)
    model, processor = random_model(job.size, device)
    if job.rollout == "vllm":  # reads what it generates with from files
        save_checkpoint(model, processor, job.start)
    rows = make_questions(settings, job.size, processor)
    shared = [] if job.size.tuning == "full" else list(model.parameters())
    twin = copy.deepcopy(model, {id(weight): weight for weight in shared})
    pairs = ((GRPOTrainer, model), (DRPOTrainer, twin))
    return {
        kind.__name__: _timed_trainer(kind, each, processor, rows, job, out) for kind, each in pairs
    }


def random_model(size: ModelSize, device: torch.device) -> tuple[Any, Any]:
    """A model of this size with random weights on ``device``, and a processor that fits it."""
    if size.base == "tiny":
        model, processor = tiny_model(0)
        return model.to(device), processor
    model = QoQForConditionalGeneration.from_base(
        size.base, dtype=getattr(torch, size.dtype), device_map=str(device), random_weights=True
    )
    processor = tiny_processor()
    processor.tokenizer = filled(processor.tokenizer, model.config.text_config.vocab_size)
    token = processor.tokenizer.convert_tokens_to_ids
    for config in (model.config, model.model.config):
        config.image_token_id = token(IMAGE_TOKEN)
        config.video_token_id = token("<|video_pad|>")
        config.vision_start_token_id = token("<|vision_start|>")
        config.vision_end_token_id = token("<|vision_end|>")
        config.ecg_token_id = token(ECG_TOKEN)
    generation = model.generation_config
    generation.eos_token_id = processor.tokenizer.eos_token_id
    generation.pad_token_id = processor.tokenizer.pad_token_id
    generation.suppress_tokens = suppressed_token_ids(processor.tokenizer)
    return model, processor


def filled(tokenizer: PreTrainedTokenizerFast, entries: int) -> PreTrainedTokenizerFast:
    """``tokenizer`` with invented words up to ``entries``: decoded as real ones, never encoded."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = parts["model"]["vocab"]
    vocabulary |= {f"Ġ{number:04x}": number for number in range(len(tokenizer), entries)}
    filled_up = copy.deepcopy(tokenizer)
    filled_up._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(parts))
    return filled_up


def make_questions(settings: Settings, size: ModelSize, processor: Any) -> Dataset:
    """Questions with one image, each of exactly ``prompt_tokens`` tokens: a report fills them."""
    side = PATCH * max(2, round((IMAGE_SHARE * settings.prompt_tokens) ** 0.5))
    images = processor.image_processor
    images.size = {"shortest_edge": side**2, "longest_edge": side * (side + PATCH)}
    rows = make_phantom(PHANTOM_ROWS, seed=0).filter(lambda row: row["images"])
    rows = rows.select(range(min(2 * settings.questions, len(rows))))
    word = words()[0]  # one token of the tiny tokenizer

    def with_report(row: dict[str, Any]) -> dict[str, Any]:
        least = row | {"report": word}
        chat = to_messages(model_view(least, images), size.answer_style)
        read = processor.apply_chat_template(
            [chat], add_generation_prompt=True, tokenize=True, return_dict=True
        )
        missing = settings.prompt_tokens - len(read["input_ids"][0])
        if missing < 0:
            raise PromptError(
                f"The image and the question take {settings.prompt_tokens - missing} tokens: ask "
                "for a longer prompt."
            )
        return {"report": " ".join([word] * (1 + missing))}

    return question_dataset(rows.map(with_report), images, size.answer_style)


def varied(completions: list[Any], **_: Any) -> list[float]:
    """A reward by chance: a random model earns none, and without spread there is no gradient."""
    return [random.random() for _ in completions]


def _timed_trainer(
    kind: type[GRPOTrainer], model: Any, processor: Any, rows: Dataset, job: TrainingJob, out: Path
) -> Timed:
    watch = Stopwatch(model.device)
    processor = copy.copy(processor)
    processor.__class__ = timed(type(processor), {"__call__": "prompts"}, watch)
    functions, weights = reward_functions(job.reward)
    methods = METHODS | (OWN_METHODS if kind is DRPOTrainer else {})
    own = _own_arguments(job, out) if kind is DRPOTrainer else {}
    with loadable_by_vllm(job, model, out):
        trainer = timed(kind, methods, watch)(
            model=model,
            args=_arguments(job, [*weights, 1.0], processor.tokenizer, out / kind.__name__),
            reward_funcs=[*functions, varied],
            train_dataset=rows,
            processing_class=processor,
            peft_config=prepare(model, job.size.tuning, job.size.trainable),
            **own,
        )
    if trainer.use_vllm and kind is GRPOTrainer:
        transformers_engine(trainer, processor.tokenizer, compiled=False)  # no ECG path for vLLM
    trainer.remove_callback(PrinterCallback)
    work = Work(
        trainer.accelerator.unwrap_model(trainer.model), trainer.args.gradient_checkpointing
    )
    attach(trainer, watch, work)
    return Timed(trainer, watch, work)


def _own_arguments(job: TrainingJob, out: Path) -> dict[str, Any]:
    """What ``DRPOTrainer`` takes besides; 1 of a reward is by chance."""
    return {
        "drpo": job.method.drpo_config,
        "attainable": lambda row: attainable(row, job.reward) + 1.0,
        "rollouts": RolloutWriter(out / "rollouts"),
    }


def _job(settings: Settings, out: Path) -> TrainingJob:
    """The settings as notebook 03 would train them."""
    size = load_size(settings.size)
    plan = {
        "questions_per_step": settings.questions,
        "rollouts": settings.rollouts,
        "micro_batch": settings.micro_batch,
        "steps": settings.steps,
    }
    size.training = size.training.model_copy(update=plan)
    size.max_completion_length = settings.new_tokens
    start = out / "start"
    return TrainingJob(start=start, size=size, method=load_method("drpo"), rollout=settings.engine)


def _arguments(job: TrainingJob, weights: list[float], tokenizer: Any, out: Path) -> GRPOConfig:
    """As notebook 03's, but that no rollout ends early."""
    new = job.size.max_completion_length
    on_gpu = job.size.needs_gpu and torch.cuda.is_available()
    here = job.size.model_copy(update={"needs_gpu": on_gpu})  # the path is tried out on a CPU, too
    args = grpo_config(job.model_copy(update={"size": here}), weights, tokenizer, out, new)
    args.gradient_checkpointing = job.size.needs_gpu
    args.generation_kwargs["min_tokens" if args.use_vllm else "min_new_tokens"] = new
    return args
