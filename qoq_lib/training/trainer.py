"""``DRPOTrainer``: TRL's ``GRPOTrainer`` with DRPO advantages, ECGs and kept rollouts.

Generation, losses, reference policy and logging stay TRL's. Three things are added: advantages come
from ``drpo.compute_advantages`` on the rewards of all processes; each prompt's own ECGs reach every
forward pass; each rollout lands in parquet.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from peft import PeftModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import split_tensor_dict

from qoq_lib.training.checkpoints import read_seal, seal
from qoq_lib.training.drpo import DomainStatistics, DrpoConfig, compute_advantages
from qoq_lib.training.rollouts import RolloutWriter
from qoq_lib.training.sharing import (
    Prompt,
    SharedPrompts,
    backbone_of,
    collate,
    generate,
    read_prompts,
)


class DRPOTrainer(GRPOTrainer):
    """GRPO with domain- and difficulty-scaled advantages (``drpo=None``: TRL's own advantages).

    The data set needs the columns ``prompt`` (chat messages), ``id``, ``domain``, ``dataset``,
    ``question``, ``options``, ``answers`` and ``boxes``; ``questions.question_dataset`` makes it.
    """

    _buffered_inputs: Any

    def __init__(
        self,
        *,
        model: Any,
        args: GRPOConfig,
        drpo: DrpoConfig | None = None,
        rollouts: RolloutWriter | None = None,
        **kwargs: Any,
    ) -> None:
        if (attention := model.config._attn_implementation) != "sdpa":
            raise ValueError(
                f"DRPOTrainer lays rollouts out under a mask that attention {attention!r} does not "
                "take: load the model with attn_implementation='sdpa'."
            )
        # TRL would build the reference policy anew from the model's name; the reference is the very
        # model handed over. With an adapter TRL switches it off instead, which is right as it is.
        own_reference = args.beta != 0.0 and not isinstance(model, PeftModel)
        beta, args.beta = args.beta, 0.0 if own_reference else args.beta
        reference = copy.deepcopy(model) if own_reference else None
        super().__init__(model=model, args=args, **kwargs)
        args.beta = self.beta = beta
        if own_reference:
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        # A collective under a rank-dependent condition in TRL: ranks without images would hang.
        self.log_multimodal = False
        self.drpo = drpo
        self.statistics = DomainStatistics(drpo or DrpoConfig())
        self.rollouts = rollouts
        self.last_batch: dict[str, Any] = {}
        self._prompts: list[Prompt] = []
        self._questions: list[tuple[str, str]] = []

    def _tokenize_prompts(self, prompts: list) -> tuple:
        """Each question is read once; TRL is told of no images, so it processes none again."""
        self._prompts = read_prompts(self.processing_class, prompts, self._questions)
        return [prompt.input_ids.tolist() for prompt in self._prompts], None, {}

    def _generate_single_turn(
        self, prompt_ids: list, images: Any, multimodal_fields: dict, num_generations: int, **_: Any
    ) -> tuple:
        if self.use_vllm:
            images = [prompt.images for prompt in self._prompts]
            return super()._generate_single_turn(prompt_ids, images, {}, num_generations)
        groups = [self._prompts[i] for i in range(0, len(self._prompts), num_generations)]
        repeated = [prompt for prompt in groups for _ in range(num_generations)]
        # A process may hold part of a question's rollouts; then each row is its own prompt.
        copies = num_generations if repeated == self._prompts else 1
        distinct = groups if repeated == self._prompts else self._prompts
        batch = collate(distinct, self.accelerator.device, self._tokenizer.pad_token_id)
        with unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            generation_kwargs=self.generation_kwargs,
        ) as model:
            tokens = generate(model, batch, copies, self.generation_config)
        return [_until_end(row, self.eos_token_ids) for row in tokens.tolist()], None

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """As TRL's, without its shuffle.

        A micro-batch keeps the rollouts of a question together, and a row meets the same neighbours
        in the policy's pass as in the reference policy's.
        """
        held = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is held:
            return inputs
        self._buffered_inputs = _in_order(self._buffered_inputs)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple:
        inner = backbone_of(self.accelerator.unwrap_model(model))
        pad_id = self._tokenizer.pad_token_id
        shared = SharedPrompts(model, inner, self._prompts, pad_id)
        return super()._get_per_token_logps_and_entropies(shared, *args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._prompts = inputs["prompts"]  # split with the rest of the batch
        return super()._compute_loss(model, inputs)

    def _calculate_rewards(self, inputs: list, *args: Any, **kwargs: Any) -> torch.Tensor:
        matrix = super()._calculate_rewards(inputs, *args, **kwargs)
        names = ("id", "domain", "dataset", "question", "options", "answers")
        rows = gather_object([{name: row[name] for name in names} for row in inputs])
        self.last_batch = {"rows": rows, "components": matrix.cpu().double().numpy()}
        return matrix

    def _generate_and_score_completions(self, inputs: list) -> dict[str, Any]:
        self._questions = [(row["id"], row["question"]) for row in inputs]
        output = super()._generate_and_score_completions(inputs)
        output["prompts"] = self._prompts
        output["row"] = torch.arange(len(inputs))
        if self.model.training:
            if self.drpo is not None:
                self._scale_by_domain(output, len(inputs))
            self._keep_rollouts(output)
        return output

    def _scale_by_domain(self, output: dict[str, Any], local: int) -> None:
        """Replace the advantages by DRPO's; every process computes the same ones."""
        group = self.num_generations
        weights = self.reward_weights.cpu().double().numpy()
        components = self.last_batch["components"]
        rewards = np.where(
            np.isnan(components).all(axis=1), np.nan, np.nansum(components * weights, axis=1)
        )
        domains = [row["domain"] for row in self.last_batch["rows"][::group]]
        result = compute_advantages(
            rewards.reshape(-1, group), domains, self.drpo or DrpoConfig(), self.statistics
        )
        self.last_batch["drpo"] = result
        flat = torch.as_tensor(result.advantages.reshape(-1), dtype=output["advantages"].dtype)
        start = self.accelerator.process_index * local
        output["advantages"] = flat[start : start + local].to(output["advantages"].device)

    def _keep_rollouts(self, output: dict[str, Any]) -> None:
        advantages = self.accelerator.gather(output["advantages"]).tolist()
        lengths = self.accelerator.gather(output["completion_mask"].sum(1)).tolist()
        if self.rollouts is None or not self.accelerator.is_main_process:
            return
        count, group = len(advantages), self.num_generations
        completions = list(self._logs["completion"])[-count:]
        components, weights = self.last_batch["components"], self.reward_weights.tolist()
        drpo = self.last_batch.get("drpo")
        step = self.state.global_step + 1
        records = []
        for index, row in enumerate(self.last_batch["rows"]):
            parts = dict(zip(self.reward_func_names, components[index].tolist(), strict=True))
            question = index // group
            records.append(
                row
                | {f"reward_{name}": value for name, value in parts.items()}
                | {
                    "step": step,
                    "sample": index % group,
                    "completion": completions[index],
                    "reward": float(np.dot(components[index], weights)),
                    "advantage": advantages[index],
                    "weight": 1.0 if drpo is None else float(drpo.weights[question]),
                    "cluster": 0 if drpo is None else int(drpo.clusters[question]),
                    "correct": parts.get("accuracy") == 1.0,
                    "n_tokens": int(lengths[index]),
                }
            )
        self.rollouts.write(step, records)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial))
        if self.args.should_save:
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            seal(folder / name, self.statistics.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.statistics.load_state_dict(read_seal(Path(checkpoint)))


def _until_end(tokens: list[int], end_ids: list[int]) -> list[int]:
    """A completion up to and with its first end token."""
    for place, token in enumerate(tokens):
        if token in end_ids:
            return tokens[: place + 1]
    return tokens


def _in_order(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Undo TRL's shuffle of a generation batch that it has already split."""
    order = torch.argsort(torch.cat([chunk["row"] for chunk in chunks]))

    def ordered(values: list[Any]) -> Any:
        if isinstance(values[0], list):
            rows = [row for part in values for row in part]
            return [rows[index] for index in order]
        if values[0] is None or values[0].ndim == 0:
            return values[0]
        return torch.cat(values)[order]

    whole = {name: ordered([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return split_tensor_dict(whole, len(chunks))
