"""QoQ: Qwen2.5-VL with an ECG path. Only what Qwen2.5-VL lacks is added here."""

from importlib import import_module
from typing import Any

import torch
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel

from .configuration_qoq import QoQConfig
from .ecg_encoder import EcgEncoder, EcgProjector


class MediaMismatchError(ValueError):
    """A row's placeholder tokens and its media do not agree; the message names the row."""


def _none_if_empty(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """A micro-batch without images arrives as empty tensors, which Qwen2.5-VL cannot take."""
    return None if tensor is None or tensor.numel() == 0 else tensor


def _require_gradient(_module: nn.Module, _given: Any, output: torch.Tensor) -> None:
    """A forward hook; inert without gradients, as it would break a compiled graph in two."""
    if torch.is_grad_enabled():
        output.requires_grad_(True)


class QoQModel(Qwen2_5_VLModel):
    """Backbone: writes each row's ECG embeddings over that row's own placeholder tokens.

    M-RoPE takes an ECG token for a text token (type 0 in ``mm_token_type_ids``): it stands one step
    after the token before it in time, height and width alike, so what follows an ECG stands
    ``out_tokens`` steps later, whatever else the row or its neighbours hold.

    ``touch_all_encoders`` is for training: a batch without images or ECGs then runs their encoder
    all the same, in its usual place, and adds zero times the result. Processes that share out the
    weights (FSDP, ZeRO-3) or the gradients (DDP) wait for each other in every module; one whose
    batch skipped an encoder, or took the two in another order, would hang them all.
    """

    config: QoQConfig
    touch_all_encoders = False

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
        # Each in its own precision: in training, a part that is trained has another than the rest.
        features = self.ecg_encoder(ecg_values.to(self.ecg_encoder.embed.weight.dtype))
        return self.ecg_projector(features.to(self.ecg_projector.fc1.weight.dtype))

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
            MediaMismatchError: a prompt has image or ECG placeholders but no such medium, or its
                ECGs do not fit (``find_ecg_tokens``).
        """
        ecg_values, pixel_values = _none_if_empty(ecg_values), _none_if_empty(pixel_values)
        is_prompt = input_ids is not None and input_ids.shape[1] > 1
        if input_ids is not None and is_prompt:  # a decoding step brings no media
            self._refuse_orphans(input_ids, "image", self.config.image_token_id, pixel_values)
            self._refuse_orphans(input_ids, "ECG", self.config.ecg_token_id, ecg_values)
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        device = inputs_embeds.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            # Keys take the precision of these; values are autocast's, and a static cache holds both
            # in one. Embeddings that are trained would be float32.
            inputs_embeds = inputs_embeds.to(torch.get_autocast_dtype(device))
        touches = self.touch_all_encoders and is_prompt
        if ecg_values is not None or touches:
            inputs_embeds = self._place_ecgs(input_ids, inputs_embeds, ecg_values, ecg_counts)
            if touches and pixel_values is None:
                inputs_embeds = inputs_embeds + 0 * self._blank_image_features(inputs_embeds).sum()
        return super().forward(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_grid_thw=_none_if_empty(image_grid_thw),
            **kwargs,
        )

    def _place_ecgs(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor,
        ecg_values: torch.Tensor | None,
        ecg_counts: torch.Tensor | None,
    ) -> torch.Tensor:
        """The embeddings with each row's ECGs on its own placeholder tokens."""
        if ecg_values is None:
            ecg = self.config.ecg_config
            blank = inputs_embeds.new_zeros(1, ecg.leads, ecg.samples)
            return inputs_embeds + 0 * self.get_ecg_features(blank).sum()
        is_ecg = self.find_ecg_tokens(input_ids, ecg_values, ecg_counts)
        features = self.get_ecg_features(ecg_values).to(inputs_embeds)
        # Rows are walked in order, and their counts agree: a scatter binds row to row.
        return inputs_embeds.masked_scatter(is_ecg.unsqueeze(-1), features)

    def _blank_image_features(self, like: torch.Tensor) -> torch.Tensor:
        vision = self.config.vision_config
        side = vision.spatial_merge_size
        values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        grid = torch.tensor([[1, side, side]], device=like.device)
        pixels = like.new_zeros(side**2, values)
        return self.get_image_features(pixels, grid).pooler_output[0]

    def _refuse_orphans(
        self, input_ids: torch.Tensor, medium: str, token_id: int, values: torch.Tensor | None
    ) -> None:
        if values is not None or not (orphans := (input_ids == token_id).any(dim=1)).any():
            return
        raise MediaMismatchError(
            f"Row {int(orphans.nonzero()[0])} of the batch has {medium} placeholder tokens but no "
            f"{medium} was given: pass everything that the processor returned."
        )

    def find_ecg_tokens(
        self,
        input_ids: torch.Tensor | None,
        ecg_values: torch.Tensor,
        ecg_counts: torch.Tensor | None,
    ) -> torch.Tensor:
        """True where an ECG goes, (rows, tokens); ``MediaMismatchError`` unless each row's fit."""
        if input_ids is None or ecg_counts is None:
            raise MediaMismatchError(
                "ECGs need 'input_ids' and 'ecg_counts' to find their rows: pass what the "
                "processor returned."
            )
        if len(ecg_counts) != len(input_ids) or int(ecg_counts.sum()) != len(ecg_values):
            raise MediaMismatchError(
                f"{len(input_ids)} rows came with {len(ecg_counts)} 'ecg_counts' for "
                f"{len(ecg_values)} ECGs: pass what the processor returned."
            )
        is_ecg, each = input_ids == self.config.ecg_token_id, self.config.ecg_config.out_tokens
        found = is_ecg.sum(dim=1)
        wrong = (found != ecg_counts.to(found) * each).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise MediaMismatchError(
                f"Row {row} of the batch has {int(found[row])} ECG placeholder tokens for "
                f"{int(ecg_counts[row])} ECGs, each of which takes {each} in this model: use "
                f"the processor saved with it, or one with ecg_tokens={each}."
            )
        return is_ecg


class QoQForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """Images, ECGs and text in, text out; drop-in for ``Qwen2_5_VLForConditionalGeneration``.

    ``forward`` is the parent's: it hands ``ecg_values`` and ``ecg_counts`` on to ``QoQModel``.
    """

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

    def enable_input_require_grads(self) -> None:
        """As the parent's, which gradient checkpointing calls, but for a frozen vision tower: its
        hook there would make every backward pass recompute and walk the tower for nothing.

        A trainer calls this after each generation and does not undo it: the hooks are replaced, as
        a compiled decoding step is compiled anew when a module has one more.
        """
        self.disable_input_require_grads()
        starts = [self.get_input_embeddings()]
        if any(weight.requires_grad for weight in self.model.visual.blocks.parameters()):
            starts.append(self.model.visual.get_input_embeddings())
        self._require_grads_hooks = [
            start.register_forward_hook(_require_gradient) for start in starts
        ]

    def prepare_inputs_for_generation(  # generate() refuses arguments without a name here
        self,
        input_ids: torch.Tensor,
        *args: Any,
        ecg_values: torch.Tensor | None = None,
        ecg_counts: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The ECG is read with the prompt; later steps find it in the key-value cache."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration or not inputs.get("use_cache", True):
            inputs |= {"ecg_values": ecg_values, "ecg_counts": ecg_counts}
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, input_ids: torch.Tensor | None = None, **model_kwargs: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        values, counts = model_kwargs.pop("ecg_values", None), model_kwargs.pop("ecg_counts", None)
        if _none_if_empty(values) is not None:
            self.model.find_ecg_tokens(input_ids, values, counts)
            rows = values.split(counts.tolist())
            values = torch.cat([row for row in rows for _ in range(expand_size)])
            counts = counts.repeat_interleave(expand_size)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, input_ids=input_ids, **model_kwargs
        )
        return input_ids, {**model_kwargs, "ecg_values": values, "ecg_counts": counts}
