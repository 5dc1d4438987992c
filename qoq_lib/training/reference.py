"""The reference policy of full tuning: a frozen copy of the model, held as the policy is."""

from typing import Any

from accelerate import Accelerator
from accelerate.utils import fsdp2_prepare_model

from qoq_lib.training.sharing import backbone_of


def prepare_reference(accelerator: Accelerator, reference: Any) -> Any:
    """``reference`` where the processes of ``accelerator`` compute with it; changed in place.

    With FSDP2 its weights are shared out as the policy's are, layer by layer and in the same
    precision; where one process alone keeps what was read (``fsdp_cpu_ram_efficient_loading``),
    they come from that one. Otherwise every process holds the whole of it, on its own GPU.
    """
    if not accelerator.is_fsdp2:
        return accelerator.prepare_model(reference, evaluation_mode=True)
    reference.requires_grad_(False)  # what is trained would be made float32
    backbone_of(reference).touch_all_encoders = True  # its processes wait for each other too
    return fsdp2_prepare_model(accelerator, reference).eval()
