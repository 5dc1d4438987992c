"""The QoQ model: Qwen2.5-VL with an ECG path, registered with transformers' auto classes."""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from .configuration_qoq import QoQConfig
from .modeling_qoq import QoQForConditionalGeneration
from .processing_qoq import QoQProcessor

AutoConfig.register(QoQConfig.model_type, QoQConfig, exist_ok=True)
AutoModelForImageTextToText.register(QoQConfig, QoQForConditionalGeneration, exist_ok=True)
AutoProcessor.register(QoQConfig, QoQProcessor, exist_ok=True)

# Their source files travel with every checkpoint, for machines without this package.
QoQConfig.register_for_auto_class()
QoQForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")
QoQProcessor.register_for_auto_class()
