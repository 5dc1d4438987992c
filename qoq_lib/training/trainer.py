"""``DRPOTrainer``: TRL's ``GRPOTrainer`` with DRPO advantages, ECGs and kept rollouts.

Sampling, losses, reference policy and logging stay TRL's. Three things are added: advantages come
from one of ``estimators.ESTIMATORS`` on the rewards of all processes; a question's prompt, images
and ECGs are read once for all its rollouts, in every forward pass; each rollout lands in parquet.
"""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from peft import PeftModel
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from qoq_lib.training.checkpoints import SealedCheckpoints, read_seal
from qoq_lib.training.drpo import RECOMMENDED, DomainStatistics, DrpoConfig
from qoq_lib.training.estimators import ESTIMATORS, NEED_GREEDY, Rewards
from qoq_lib.training.generation.engines import Split, refuse_greedy, transformers_engine
from qoq_lib.training.generation.sampling import rollout_keys
from qoq_lib.training.reference import prepare_reference
from qoq_lib.training.rollouts import RolloutWriter
from qoq_lib.training.sharing import (
    Prompt,
    SharedPrompts,
    backbone_of,
    in_order,
    read_prompts,
    until_end,
)

# What TRL keeps of a batch's images; nothing where prompts are shared, which hold their own.
IMAGE_FIELDS = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")


class DRPOTrainer(SealedCheckpoints, GRPOTrainer):
    """GRPO with the advantages of ``estimator``, a key of ``ESTIMATORS``; ``drpo`` configures it.

    ``attainable`` tells the highest reward that a row's rollouts can earn; without it all can earn
    the sum of the weights. The data set needs the columns ``prompt`` (chat messages), ``id``,
    ``domain``, ``dataset``, ``question``, ``options``, ``answers`` and ``boxes``;
    ``questions.question_dataset`` makes it.

    On a GPU transformers decodes in a compiled static cache unless ``compile_decoding`` is off; a
    sharded model is never compiled. With vLLM, transformers samples the questions with ECGs.

    Raises:
        ValueError: the model's attention takes no mask.
        TrainingError: ``estimator`` needs greedy completions and vLLM generates.
    """

    _buffered_inputs: Any
    generation_config: Any

    def __init__(
        self,
        *,
        model: Any,
        args: GRPOConfig,
        estimator: str = "drpo",
        drpo: DrpoConfig = RECOMMENDED,
        attainable: Callable[[Mapping[str, Any]], float] | None = None,
        rollouts: RolloutWriter | None = None,
        compile_decoding: bool = True,
        **kwargs: Any,
    ) -> None:
        if (attention := model.config._attn_implementation) != "sdpa":
            raise ValueError(
                f"DRPOTrainer lays rollouts out under a mask that attention {attention!r} does not "
                "take: load the model with attn_implementation='sdpa'."
            )
        # TRL would build the reference policy anew from the model's name; the reference is the very
        # model handed over. With an adapter TRL switches it off instead, which is right as it is.
        adapted = isinstance(model, PeftModel) or kwargs.get("peft_config") is not None
        own_reference = args.beta != 0.0 and not adapted
        beta, args.beta = args.beta, 0.0 if own_reference else args.beta
        reference = copy.deepcopy(model) if own_reference else None
        if args.use_vllm:
            refuse_greedy(estimator)
        super().__init__(model=model, args=args, **kwargs)
        args.beta = self.beta = beta
        if own_reference:
            self.ref_model = prepare_reference(self.accelerator, reference)
        backbone_of(self.model).touch_all_encoders = True
        # A collective under a rank-dependent condition in TRL: ranks without images would hang.
        self.log_multimodal = False
        self.decoder = transformers_engine(self, self._tokenizer, compile_decoding)
        self.estimator = estimator
        self.statistics = DomainStatistics(drpo)
        self.attainable = attainable
        self.rollouts = rollouts
        self.last_batch: dict[str, Any] = {}
        self._prompts: list[Prompt] = []
        self._questions: list[Hashable] = []

    def _tokenize_prompts(self, prompts: list) -> tuple:
        """Each question is read once; TRL is told of no images, so it processes none again."""
        self._prompts = read_prompts(self.processing_class, prompts, self._questions)
        return [prompt.input_ids.tolist() for prompt in self._prompts], None, {}

    def _generate_single_turn(
        self, prompt_ids: list, images: Any, multimodal_fields: dict, num_generations: int, **_: Any
    ) -> tuple:
        if not self.use_vllm:
            return self._decode(range(len(self._prompts))), None
        split = Split.of(self._prompts, num_generations)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["rollout/transformers_share"].append(split.share)
        here = self._decode([row or 0 for row in split.here]) if split.here else []
        folded = self.processing_class.image_token_id if self.vllm_mode == "colocate" else None
        ids, shown = split.requests(self._prompts, [self._tokenizer.eos_token_id], folded)
        there = super()._generate_single_turn(ids, shown, {}, num_generations) if ids else ([], [])
        return split.merged(here, *there)

    def _decode(self, rows: Sequence[int]) -> list[list[int]]:
        """One completion for each of these rows of the batch, by transformers."""
        with unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            generation_kwargs=self.generation_kwargs,
        ) as model:
            prompts, keys = [self._prompts[row] for row in rows], self._keys()[list(rows)]
            tokens = self.decoder.generate(model, prompts, self.generation_config, keys)
        return [until_end(row, self.eos_token_ids) for row in tokens.tolist()]

    def _keys(self) -> torch.Tensor:
        """Of this process's rollouts: the same ones however many processes share the step."""
        count = len(self._prompts)
        first = self.accelerator.process_index * count
        device = self.accelerator.device
        return rollout_keys(self.args.seed, self.state.global_step, first, count, device)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """As TRL's, without its shuffle.

        A micro-batch keeps the rollouts of a question together, and a row meets the same neighbours
        in the policy's pass as in the reference policy's.
        """
        held = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is held:
            return inputs
        self._buffered_inputs = in_order(self._buffered_inputs)
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
        told = [{name: row[name] for name in row if name != "prompt"} for row in inputs]
        rows = gather_object(told)
        self.last_batch = {"rows": rows, "components": matrix.cpu().double().numpy()}
        return matrix

    def _generate_and_score_completions(self, inputs: list) -> dict[str, Any]:
        needs_greedy = self.model.training and self.estimator in NEED_GREEDY
        greedy = self._greedy_rewards(inputs) if needs_greedy else None
        self._questions = [(row["id"], row["question"]) for row in inputs]
        output = super()._generate_and_score_completions(inputs)
        output["prompts"] = self._prompts
        output["row"] = torch.arange(len(inputs), device=output["advantages"].device)
        if self.model.training:
            self.last_batch["kl"] = self._kl_to_reference(output)
            self._replace_advantages(output, len(inputs), greedy)
            self._keep_rollouts(output)
        return output

    def _kl_to_reference(self, output: dict[str, Any]) -> np.ndarray | None:
        """KL of each rollout to the reference policy, questions x rollouts, for DRPO's damping.

        TRL computes the policy's log-probabilities in the loss alone, which is too late, so this
        costs a forward pass; it is left out where there is no reference policy or no damping.
        """
        damps = self.estimator == "drpo" and self.statistics.config.kl_damping
        if not damps or "ref_per_token_logps" not in output:
            return None
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        with torch.no_grad():
            policy = self._get_per_token_logps_and_entropies(
                self.model,
                ids,
                mask,
                output["completion_ids"].shape[1],
                batch_size=self.args.per_device_train_batch_size,
                **{name: output[name] for name in IMAGE_FIELDS if name in output},
            )[0]
        ratio = output["ref_per_token_logps"] - policy
        kl = ((ratio.exp() - ratio - 1) * output["completion_mask"]).sum(dim=1)
        total = self.accelerator.gather(kl).cpu().double().numpy()
        return np.asarray(total).reshape(-1, self.num_generations)

    def _replace_advantages(
        self, output: dict[str, Any], local: int, greedy: np.ndarray | None
    ) -> None:
        """Put the estimator's advantages in place of TRL's; every process computes the same."""
        rows = self.last_batch["rows"][:: self.num_generations]
        weights = self.reward_weights.cpu().double().numpy()
        components = self.last_batch["components"]
        attainable = self.attainable or (lambda row: float(weights.sum()))
        rewards = Rewards(
            components.reshape(len(rows), self.num_generations, -1),
            weights,
            np.array([attainable(row) for row in rows]),
            greedy,
            self.last_batch["kl"],
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
        self._questions = list(unique)
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
        ids = output["completion_ids"]
        ends = torch.isin(ids, torch.tensor(self.eos_token_ids, device=ids.device))
        stopped = self.accelerator.gather(ends.any(dim=1)).tolist()
        if self.rollouts is None or not self.accelerator.is_main_process:
            return
        count, group = len(advantages), self.num_generations
        completions = list(self._logs["completion"])[-count:]
        components, weights = self.last_batch["components"], self.reward_weights.tolist()
        estimate = self.last_batch["estimate"]
        step, column = self.state.global_step + 1, self.statistics.config.domain_column
        records = []
        for index, row in enumerate(self.last_batch["rows"]):
            parts = dict(zip(self.reward_func_names, components[index].tolist(), strict=True))
            question = index // group
            records.append(
                row
                | {f"reward_{name}": value for name, value in parts.items()}
                | {
                    "sample": index % group,
                    "completion": completions[index],
                    "reward": float(np.dot(components[index], weights)),
                    "advantage": advantages[index],
                    "weight": float(estimate.weights[question]),
                    "cluster": int(estimate.clusters[question]),
                    "domain_temperature": estimate.domain_temperatures.get(row[column], 1.0),
                    "cluster_temperature": float(estimate.cluster_temperatures[question]),
                    "correct": parts.get("accuracy") == 1.0,
                    "finish_reason": "stop" if stopped[index] else "length",
                    "n_tokens": int(lengths[index]),
                }
            )
        self.rollouts.write(step, records)

    def sealed_state(self) -> Mapping[str, Any]:
        """What of the advantage estimator a resumed training needs."""
        return self.statistics.state_dict()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.statistics.load_state_dict(read_seal(Path(checkpoint)))
