"""A ``TrainingJob`` in TRL's terms."""

from pathlib import Path
from typing import Any

from trl import GRPOConfig

from qoq_lib.runs import derive_seed
from qoq_lib.training.generation.engines import engine_options
from qoq_lib.training.job import TrainingError, TrainingJob


def grpo_config(
    job: TrainingJob, weights: list[float], tokenizer: Any, out: Path, answer_length: int
) -> GRPOConfig:
    """TRL's configuration of this job; its checkpoints go to ``out``.

    ``weights`` are the reward functions', ``answer_length`` the most new tokens of a completion.

    Raises:
        TrainingError: the rollouts of a step cannot be shared out evenly.
    """
    size, plan = job.size, job.size.training
    per_device, accumulation = _shares(job)
    values: dict[str, Any] = dict(
        output_dir=str(out),
        max_steps=plan.steps,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation * job.method.updates_per_generation,
        num_generations=plan.rollouts,
        learning_rate=plan.rate(size.tuning),
        lr_scheduler_type="cosine",
        warmup_steps=5,
        optim="adamw_torch_fused",  # this and the next two: TRL's defaults, which unsloth changes
        weight_decay=0.0,
        mask_truncated_completions=False,
        beta=plan.beta,
        max_completion_length=answer_length,
        reward_weights=weights,
        bf16=size.dtype == "bfloat16",
        use_cpu=not size.needs_gpu,
        gradient_checkpointing=size.needs_gpu,
        dataloader_pin_memory=size.needs_gpu,
        logging_steps=1,
        save_strategy="no",  # not by steps: SaveEvery says when
        save_total_limit=2,  # so that the last complete one stays while the next is written
        report_to="none",
        disable_tqdm=True,
        seed=derive_seed(job.seed, "training"),
        data_seed=derive_seed(job.seed, "order"),
    )
    values |= engine_options(job, tokenizer, answer_length)
    return GRPOConfig(**values | job.method.grpo)


def _shares(job: TrainingJob) -> tuple[int, int]:
    """Rollouts per forward pass of a process, and forward passes per optimiser step."""
    plan = job.size.training
    per_step = plan.questions_per_step * plan.rollouts
    per_process, rest = divmod(per_step, job.processes)
    per_device = min(plan.micro_batch, per_process)
    if rest or per_process % per_device:
        raise TrainingError(
            f"A step has {plan.questions_per_step} questions x {plan.rollouts} rollouts = "
            f"{per_step}, which {job.processes} process(es) cannot take in passes of "
            f"{plan.micro_batch}: choose micro_batch so that it divides {per_step} / "
            f"{job.processes}."
        )
    return per_device, per_process // per_device
