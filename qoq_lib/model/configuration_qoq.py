"""Configuration: Qwen2.5-VL's own, plus the ECG encoder and its placeholder token."""

from typing import Any

from transformers import PreTrainedConfig, Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import (
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLVisionConfig,
)


class EcgConfig(PreTrainedConfig):
    """Sizes of the ECG encoder; the defaults are ECG-JEPA's (arXiv 2410.08559, section 4).

    One ECG is ``leads`` x ``samples`` values: leads I, II, V1-V6, 10 s at 250 Hz, each lead cut
    into patches of ``patch_size``. ``out_tokens`` is how many tokens the language model sees: 8,
    one per lead in that order; 50, one per time patch in order; or 1, the mean of all patches.
    """

    model_type = "qoq_ecg"
    base_config_key = "ecg_config"

    leads: int = 8
    samples: int = 2500
    patch_size: int = 50
    hidden_size: int = 768
    depth: int = 12
    num_heads: int = 16
    mlp_ratio: float = 4.0
    out_tokens: int = 8

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        times = self.samples // self.patch_size
        if self.out_tokens not in (1, self.leads, times):
            raise ValueError(
                f"An ECG cannot have {self.out_tokens} tokens: set 'out_tokens' to 1 (the mean), "
                f"{self.leads} (one per lead) or {times} (one per time patch)."
            )


class QoQConfig(Qwen2_5_VLConfig):
    """``Qwen2_5_VLConfig`` with ``ecg_config`` and ``ecg_token_id`` (the ECG placeholder)."""

    model_type = "qoq"
    sub_configs = {
        "vision_config": Qwen2_5_VLVisionConfig,
        "text_config": Qwen2_5_VLTextConfig,
        "ecg_config": EcgConfig,
    }
    sub_configs_defaults = sub_configs  # the name transformers uses from 5.20 on

    ecg_config: Any = None  # EcgConfig, its dict, or None for the defaults
    ecg_token_id: int = 151665

    def __post_init__(self, **kwargs: Any) -> None:
        if self.ecg_config is None or isinstance(self.ecg_config, dict):
            self.ecg_config = EcgConfig(**(self.ecg_config or {}))
        super().__post_init__(**kwargs)
