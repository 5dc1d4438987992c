"""QoQ: Qwen2.5-VL with an ECG path. Only what Qwen2.5-VL lacks is added here."""

from importlib import import_module
from typing import Any

import torch
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel

from .configuration_qoq import QoQConfig
from .ecg_encoder import EcgEncoder, EcgProjector


class EcgMismatchError(ValueError):
    """A row's ECG placeholder tokens and its ECGs do not agree; the message names the row."""


def _none_if_empty(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """A micro-batch without images arrives as empty tensors, which Qwen2.5-VL cannot take."""
    return None if tensor is None or tensor.numel() == 0 else tensor


class QoQModel(Qwen2_5_VLModel):
    """Backbone: writes each row's ECG embeddings over that row's own placeholder tokens."""

    config_class = QoQConfig
    config: QoQConfig

    def __init__(self, config: QoQConfig) -> None:
        super().__init__(config)
        self.ecg_encoder = EcgEncoder(config.ecg_config)
        self.ecg_projector = EcgProjector(config.ecg_config, config.text_config.hidden_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EcgEncoder):  # buffers are not in the checkpoint: fill them again
            module.fill_buffers()

    def get_ecg_features(self, ecg_values: torch.Tensor) -> torch.Tensor:
        """(n, leads, samples) normalised ECGs -> (n, ``out_tokens``, language-model width)."""
        ecg_values = ecg_values.to(self.ecg_projector.fc1.weight.dtype)
        return self.ecg_projector(self.ecg_encoder(ecg_values))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        ecg_values: torch.Tensor | None = None,
        ecg_counts: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As ``Qwen2_5_VLModel``, plus ``ecg_values`` (ECGs of all rows, in row order, each
        leads x samples) and ``ecg_counts`` (ECGs per row).

        Raises:
            EcgMismatchError: a row's placeholders are not its ECG count times ``out_tokens``, or
                ``ecg_counts`` does not cover rows and ECGs.
        """
        ecg_values = _none_if_empty(ecg_values)
        if ecg_values is None:
            self._refuse_orphans(input_ids)
        else:
            if inputs_embeds is None:
                inputs_embeds = self.get_input_embeddings()(input_ids)
            inputs_embeds = self._write_ecgs(input_ids, inputs_embeds, ecg_values, ecg_counts)
        return super().forward(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            pixel_values=_none_if_empty(pixel_values),
            image_grid_thw=_none_if_empty(image_grid_thw),
            **kwargs,
        )

    def _refuse_orphans(self, input_ids: torch.Tensor | None) -> None:
        """A prompt's placeholders need their ECGs; single decoding steps are not looked at."""
        if input_ids is None or input_ids.shape[1] == 1:
            return
        orphans = (input_ids == self.config.ecg_token_id).any(dim=1)
        if orphans.any():
            raise EcgMismatchError(
                f"Row {int(orphans.nonzero()[0])} of the batch has ECG placeholder tokens but no "
                f"ECG was given: pass 'ecg_values' and 'ecg_counts' as the processor returned them."
            )

    def _write_ecgs(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor,
        ecg_values: torch.Tensor,
        ecg_counts: torch.Tensor | None,
    ) -> torch.Tensor:
        if input_ids is None or ecg_counts is None:
            raise EcgMismatchError(
                "ECGs need 'input_ids' and 'ecg_counts' to find their rows: pass what the "
                "processor returned."
            )
        if len(ecg_counts) != len(input_ids) or int(ecg_counts.sum()) != len(ecg_values):
            raise EcgMismatchError(
                f"{len(input_ids)} rows came with {len(ecg_counts)} 'ecg_counts' for "
                f"{len(ecg_values)} ECGs: pass what the processor returned."
            )
        is_ecg = input_ids == self.config.ecg_token_id
        found, expected = is_ecg.sum(dim=1), ecg_counts * self.config.ecg_config.out_tokens
        if not torch.equal(found, expected.to(found)):
            row = int((found != expected.to(found)).nonzero()[0])
            raise EcgMismatchError(
                f"Row {row} of the batch has {int(found[row])} ECG placeholder tokens for "
                f"{int(ecg_counts[row])} ECGs: use the processor saved with this model."
            )
        # Rows are walked in order, so once every row's count agrees a scatter binds row to row.
        features = self.get_ecg_features(ecg_values).to(inputs_embeds)
        return inputs_embeds.masked_scatter(is_ecg.unsqueeze(-1), features)


class QoQForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """Images, ECGs and text in, text out; drop-in for ``Qwen2_5_VLForConditionalGeneration``."""

    config_class = QoQConfig
    config: QoQConfig

    def __init__(self, config: QoQConfig) -> None:
        # The parent would build a Qwen2_5_VLModel only to throw it away: skip to its own parent.
        super(Qwen2_5_VLForConditionalGeneration, self).__init__(config)
        self.model = QoQModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_base(cls, name: str, **options: Any) -> "QoQForConditionalGeneration":
        """A published Qwen2.5-VL with a fresh ECG path: see ``qoq_lib.model.from_base``."""
        # By name: in a checkpoint this file must load where qoq_lib is not installed.
        return import_module("qoq_lib.model.from_base").from_base(name, **options)

    def _init_weights(self, module: nn.Module) -> None:
        self.model._init_weights(module)

    def forward(  # transformers checks generate()'s arguments against these names
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        ecg_values: torch.Tensor | None = None,
        ecg_counts: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """As the parent's; ``ecg_values`` and ``ecg_counts`` as in ``QoQModel.forward``."""
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
            logits_to_keep=logits_to_keep,
            ecg_values=ecg_values,
            ecg_counts=ecg_counts,
            **kwargs,
        )

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, *args: Any, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """The ECG is read with the prompt; later steps find it in the key-value cache."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and inputs.get("use_cache", True):
            inputs["ecg_values"] = inputs["ecg_counts"] = None
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, input_ids: torch.Tensor | None = None, **model_kwargs: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        values, counts = model_kwargs.pop("ecg_values", None), model_kwargs.pop("ecg_counts", None)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, input_ids=input_ids, **model_kwargs
        )
        if values is not None and counts is not None:
            rows = values.split(counts.tolist())
            model_kwargs["ecg_values"] = torch.cat(
                [row for row in rows for _ in range(expand_size)]
            )
            model_kwargs["ecg_counts"] = counts.repeat_interleave(expand_size)
        return input_ids, model_kwargs
