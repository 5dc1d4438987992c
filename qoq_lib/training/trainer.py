"""``DRPOTrainer``: TRL's ``GRPOTrainer`` with DRPO advantages, ECGs and kept rollouts.

Generation, losses, reference policy and logging stay TRL's. Three things are added: advantages come
from one of ``estimators.ESTIMATORS`` on the rewards of all processes; each prompt's own ECGs reach
every forward pass; each rollout lands in parquet.
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from peft import PeftModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOConfig, GRPOTrainer

from qoq_lib.training.drpo import RECOMMENDED, DomainStatistics, DrpoConfig
from qoq_lib.training.estimators import ESTIMATORS, NEED_GREEDY, Rewards, attainable_rewards
from qoq_lib.training.rollouts import RolloutWriter

STATE_FILE = "drpo_state.json"


class _WithEcgs:
    """A model that is handed its rows' ECGs, chunk by chunk in row order.

    TRL's log-probability pass has a closed list of arguments and would drop them in silence.
    """

    def __init__(self, model: Any, rows: list[torch.Tensor]) -> None:
        self.model, self.rows, self.position = model, rows, 0

    def __call__(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        rows = self.rows[self.position : self.position + len(input_ids)]
        self.position += len(input_ids)
        kwargs["ecg_values"] = torch.cat(rows).to(input_ids.device)
        kwargs["ecg_counts"] = torch.tensor([len(row) for row in rows], device=input_ids.device)
        return self.model(input_ids=input_ids, **kwargs)


class DRPOTrainer(GRPOTrainer):
    """GRPO with the advantages of ``estimator``, a key of ``ESTIMATORS``; ``drpo`` configures it.

    The data set needs the columns ``prompt`` (chat messages), ``id``, ``domain``, ``dataset``,
    ``question``, ``options``, ``answers`` and ``boxes``; ``questions.question_dataset`` makes it.
    """

    generation_config: Any

    def __init__(
        self,
        *,
        model: Any,
        args: GRPOConfig,
        estimator: str = "drpo",
        drpo: DrpoConfig = RECOMMENDED,
        rollouts: RolloutWriter | None = None,
        **kwargs: Any,
    ) -> None:
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
        if estimator in NEED_GREEDY and args.use_vllm:
            raise ValueError(f"{estimator} needs greedy completions: set use_vllm to False.")
        self.estimator = estimator
        self.statistics = DomainStatistics(drpo)
        self.rollouts = rollouts
        self.last_batch: dict[str, Any] = {}
        self._ecg_rows: list[torch.Tensor] | None = None

    def _tokenize_prompts(self, prompts: list) -> tuple:
        prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        self._ecg_rows = None
        if "ecg_values" in fields:
            counts = fields["ecg_counts"].tolist()
            self._ecg_rows = list(fields["ecg_values"].split(counts))
        return prompt_ids, images, fields

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple:
        if self._ecg_rows is not None:
            model = _WithEcgs(model, self._ecg_rows)
        return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._ecg_rows = inputs.get("ecg_rows")  # shuffled and split with the rest of the batch
        return super()._compute_loss(model, inputs)

    def _calculate_rewards(self, inputs: list, *args: Any, **kwargs: Any) -> torch.Tensor:
        matrix = super()._calculate_rewards(inputs, *args, **kwargs)
        names = ("id", "domain", "dataset", "question", "options", "answers", "boxes")
        rows = gather_object([{name: row[name] for name in names} for row in inputs])
        self.last_batch = {"rows": rows, "components": matrix.cpu().double().numpy()}
        return matrix

    def _generate_and_score_completions(self, inputs: list) -> dict[str, Any]:
        needs_greedy = self.model.training and self.estimator in NEED_GREEDY
        greedy = self._greedy_rewards(inputs) if needs_greedy else None
        output = super()._generate_and_score_completions(inputs)
        if self._ecg_rows is not None:
            output["ecg_rows"] = self._ecg_rows
        if self.model.training:
            self._replace_advantages(output, len(inputs), greedy)
            self._keep_rollouts(output)
        return output

    def _replace_advantages(
        self, output: dict[str, Any], local: int, greedy: np.ndarray | None
    ) -> None:
        """Put the estimator's advantages in place of TRL's; every process computes the same."""
        rows = self.last_batch["rows"][:: self.num_generations]
        weights = self.reward_weights.cpu().double().numpy()
        components = self.last_batch["components"]
        rewards = Rewards(
            components.reshape(len(rows), self.num_generations, -1),
            weights,
            attainable_rewards(rows, self.reward_func_names, weights.tolist()),
            greedy,
            self.last_batch.get("kl"),
        )
        column = self.statistics.config.domain_column
        domains = [row[column] for row in rows]
        result = ESTIMATORS[self.estimator](rewards, domains, self.statistics)
        self.last_batch["estimate"] = result
        for name, count in result.degenerate.items():
            self._metrics["train"][f"drpo/{name}"].append(count)
        flat = torch.as_tensor(result.advantages.reshape(-1), dtype=output["advantages"].dtype)
        start = self.accelerator.process_index * local
        output["advantages"] = flat[start : start + local].to(output["advantages"].device)

    def _greedy_rewards(self, inputs: list) -> np.ndarray:
        """Reward of each question's greedy completion over all processes, for ReMax.

        One extra completion per question, generated before the rollouts; it draws no random number,
        so an arm that needs it samples the same rollouts as the others from the same seed.
        """
        unique = {row["id"]: row["prompt"] for row in inputs}
        prompt_ids, images, fields = self._tokenize_prompts(list(unique.values()))
        sampling = self.generation_config
        self.generation_config = copy.deepcopy(sampling)
        self.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None)
        try:
            ids, _ = self._generate_single_turn(prompt_ids, images, fields, 1)
        finally:
            self.generation_config = sampling
        texts = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        said = {name: (text, tokens) for name, text, tokens in zip(unique, texts, ids, strict=True)}
        answers = [[{"role": "assistant", "content": said[row["id"]][0]}] for row in inputs]
        tokens = [said[row["id"]][1] for row in inputs]
        prompts = [row["prompt"] for row in inputs]
        matrix = super()._calculate_rewards(inputs, prompts, answers, tokens)
        total = (matrix * self.reward_weights.to(matrix.device)).nansum(dim=1)
        return total[:: self.num_generations].cpu().double().numpy()

    def _keep_rollouts(self, output: dict[str, Any]) -> None:
        advantages = self.accelerator.gather(output["advantages"]).tolist()
        lengths = self.accelerator.gather(output["completion_mask"].sum(1)).tolist()
        if self.rollouts is None or not self.accelerator.is_main_process:
            return
        count, group = len(advantages), self.num_generations
        completions = list(self._logs["completion"])[-count:]
        components, weights = self.last_batch["components"], self.reward_weights.tolist()
        estimate = self.last_batch["estimate"]
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
                    "weight": float(estimate.weights[question]),
                    "cluster": int(estimate.clusters[question]),
                    "correct": parts.get("accuracy") == 1.0,
                    "n_tokens": int(lengths[index]),
                }
            )
        self.rollouts.write(step, records)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial))
        path = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}" / STATE_FILE
        if self.args.should_save:
            path.write_text(json.dumps(self.statistics.state_dict()))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        path = Path(checkpoint or "") / STATE_FILE
        if checkpoint is not None and path.exists():
            self.statistics.load_state_dict(json.loads(path.read_text()))
