"""Training through unsloth: its loading and adapters, and ``DRPOTrainer`` inside its trainer.

Import this after ``backend.start_backend("unsloth")``: unsloth writes TRL's trainer anew from its
source and puts that in TRL's place. Of ``DRPOTrainer`` rewards, advantages, rollouts and the state
in checkpoints survive. Log-probabilities and the loss become unsloth's, which hand the model the
fields of images and video alone, so ECGs are refused (``backend.refuse_ecgs``) and prompts are not
shared among rollouts. ``tests/test_unsloth_source.py`` holds this against unsloth's real source.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOTrainer

from qoq_lib.model.loading import ModelSize, load_processor
from qoq_lib.model.tuning import prepare, quantization
from qoq_lib.training.backend import BackendError, refuse_ecgs, start_backend
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.trainer import DRPOTrainer

CONTEXT = 8192  # tokens, the paper's (appendix D.1)


class UnslothDRPOTrainer(DRPOTrainer):
    """``DRPOTrainer`` without shared prompts: the parts that unsloth replaces are the base's own.

    The model comes with its adapters on (``load_adapted``): unsloth's trainer ignores
    ``peft_config``.
    """

    _tokenize_prompts = GRPOTrainer._tokenize_prompts
    _generate_single_turn = GRPOTrainer._generate_single_turn
    _prepare_inputs = GRPOTrainer._prepare_inputs
    _get_per_token_logps_and_entropies = GRPOTrainer._get_per_token_logps_and_entropies
    _compute_loss = GRPOTrainer._compute_loss

    def _generate_and_score_completions(self, inputs: list) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        del output["prompts"]  # the shared ones, of which there are none
        return output

    def _calculate_rewards(
        self, inputs: list, prompts: list, completions: list, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Unsloth hands over plain texts where there are images; rewards read chats, as TRL's."""
        chats = [
            [{"role": "assistant", "content": said}] if isinstance(said, str) else said
            for said in completions
        ]
        return super()._calculate_rewards(inputs, prompts, chats, *args, **kwargs)


def check_job(job: TrainingJob, rows: Dataset) -> None:
    """Raise ``BackendError``, before anything is loaded, for what unsloth could not train here."""
    if job.backend != "unsloth":
        return
    limits = {
        "trains adapters: set tuning to lora or qlora": job.size.tuning == "full",
        "learns from rewards here: choose a method other than sft": job.method.advantages is None,
        "samples with transformers here: set rollout to that": job.rollout != "transformers",
        "trains in one process: set num_processes to 1": job.processes > 1,
    }
    for limit, is_met in limits.items():
        if is_met:
            raise BackendError(f"backend 'unsloth' {limit}, or use backend 'peft'.")
    refuse_ecgs(job.backend, rows)
    start_backend(job.backend)


def load_adapted(start: Path, size: ModelSize, seed: int) -> tuple[Any, Any]:
    """The checkpoint ``start`` through ``FastVisionModel``, with adapters on, and its processor.

    Adapters lie where ``tuning.prepare`` puts them. The ECG path is loaded with the rest; data
    without ECGs leave it as it is.

    Raises:
        LoadError: ``start`` holds no readable processor.
    """
    from unsloth import FastVisionModel  # there, once ``check_job`` has passed

    processor = load_processor(start, size.pixels)
    processor.pad_token_id = processor.tokenizer.pad_token_id  # unsloth's trainer asks for it here
    model, _ = FastVisionModel.from_pretrained(
        model_name=str(start),
        use_exact_model_name=True,
        max_seq_length=CONTEXT,
        dtype=getattr(torch, size.dtype),
        load_in_4bit=False,  # quantization_config decides
        quantization_config=quantization(size.tuning),
        attn_implementation="sdpa",
        use_gradient_checkpointing="unsloth",
    )
    adapters = prepare(model, size.tuning, size.trainable)
    assert adapters is not None  # "full" was refused
    adapted = FastVisionModel.get_peft_model(
        model,
        r=adapters.r,
        lora_alpha=adapters.lora_alpha,
        target_modules=adapters.target_modules,
        modules_to_save=adapters.modules_to_save,
        use_gradient_checkpointing="unsloth",
        random_state=seed,
    )
    return adapted, processor
