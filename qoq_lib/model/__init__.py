"""The QoQ model: Qwen2.5-VL with an ECG path, registered with transformers' auto classes."""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from .configuration_qoq import QoQConfig
from .modeling_qoq import QoQForConditionalGeneration
from .processing_qoq import QoQProcessor

AutoConfig.register(QoQConfig.model_type, QoQConfig, exist_ok=True)
AutoModelForImageTextToText.register(QoQConfig, QoQForConditionalGeneration, exist_ok=True)
AutoProcessor.register(QoQConfig, QoQProcessor, exist_ok=True)
