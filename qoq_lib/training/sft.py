"""The supervised arm: the same questions in the same order, taught their true answers.

One step sees as many questions as a step of the RL arms, each once, with its answer in place of
rollouts; steps, learning rate, schedule and seeds are those of the RL arms' ``GRPOConfig``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from peft import LoraConfig, get_peft_model
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments
from trl import GRPOConfig
from trl.trainer.utils import RepeatSampler

from qoq_lib.data.prompts import AnswerStyle
from qoq_lib.training.align import AnswerCollator, largest_box
from qoq_lib.training.checkpoints import SealedCheckpoints
from qoq_lib.training.monitoring.callbacks import PlainProgress
from qoq_lib.training.sharing import backbone_of

SHARED = (
    *("output_dir", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "bf16"),
    *("use_cpu", "gradient_checkpointing", "dataloader_pin_memory", "logging_steps"),
    *("save_strategy", "save_total_limit", "report_to", "disable_tqdm", "seed", "data_seed"),
)


class AnswerTrainer(SealedCheckpoints, Trainer):
    """``transformers.Trainer`` that takes questions in the order of TRL's GRPO trainer.

    Args:
        views: training rows as ``model_view`` gives them.
        args: the RL arms' configuration.
        adapters: train these in place of all weights; ``None``: all weights.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        views: Sequence[Mapping[str, Any]],
        style: AnswerStyle,
        args: GRPOConfig,
        adapters: LoraConfig | None = None,
    ) -> None:
        self.questions = args.generation_batch_size // args.num_generations  # of all processes
        own = self.questions // args.world_size
        per_pass = min(args.per_device_train_batch_size, own)
        super().__init__(
            model=get_peft_model(model, adapters) if adapters else model,
            args=TrainingArguments(
                **{name: getattr(args, name) for name in SHARED},
                per_device_train_batch_size=per_pass,
                gradient_accumulation_steps=own // per_pass,
                remove_unused_columns=False,
            ),
            data_collator=AnswerCollator(processor, style),
            processing_class=processor,
            train_dataset=[
                {"row": view, "answers": view["answers"], "box": largest_box(view)}
                for view in views
            ],
            callbacks=[PlainProgress("train")],
        )
        backbone_of(self.model).touch_all_encoders = True

    def _get_train_sampler(self, dataset: Any = None) -> Sampler:
        """TRL's order: its sampler, with each question once."""
        data = self.train_dataset if dataset is None else dataset
        return RepeatSampler(data, 1, self.questions, seed=self.args.seed)
