"""ECG-JEPA's published weights in our encoder: keys renamed, nothing missing, nothing left over.

The published files (github.com/sehunfromdaegu/ECG_JEPA, arXiv 2410.08559) hold
``{"encoder": state_dict, "epoch": n}``: patch embedding ``W_P``, twelve
``encoder_blocks.blocks``, ``norm``, and the fixed positions ``pos_embed``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from qoq_lib.runs import OneSentenceError

from .ecg_encoder import EcgEncoder

PUBLISHED = {"embed": "W_P", "qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1"}
PUBLISHED |= {"fc2": "mlp.fc2", "norm": "norm", "norm1": "norm1", "norm2": "norm2"}


class EcgWeightsError(OneSentenceError, ValueError):
    """A file does not hold ECG-JEPA's encoder in this encoder's size; the message says why."""


def load_ecg_jepa(encoder: EcgEncoder, path: str | Path) -> None:
    """Copy ECG-JEPA's published weights into ``encoder``, in its own dtype and on its device.

    Args:
        encoder: ``model.model.ecg_encoder``; left as it was where an error is raised.
        path: the published ``.pth`` file, or its encoder's state dict as ``.safetensors``. No
            code in it is run.

    Raises:
        EcgWeightsError: the file is missing or damaged, a key is missing, unexpected or of another
            shape, or its positions are not the fixed sine-cosine ones.
    """
    weights = _read(Path(path))
    ours = {published_name(name): name for name in encoder.state_dict()}
    shapes = {given: encoder.get_parameter(name).shape for given, name in ours.items()}
    if fault := _fault(weights, shapes | {"pos_embed": encoder.positions.shape}):
        raise EcgWeightsError(
            f"{path} is not ECG-JEPA's encoder in this model's size ({fault}): take the "
            "checkpoint published with arXiv 2410.08559 and an EcgConfig of its sizes."
        )
    # Both come from one formula; learned positions would lie far off.
    positions = weights.pop("pos_embed").to(encoder.positions)
    if not torch.allclose(positions, encoder.positions, rtol=0, atol=1e-5):
        raise EcgWeightsError(
            f"The positions 'pos_embed' in {path} are not the fixed 2-D sine-cosine ones that this "
            "encoder adds: take a checkpoint trained with pos_type 'sincos'."
        )
    encoder.load_state_dict({ours[given]: tensor for given, tensor in weights.items()})


def published_name(name: str) -> str:
    """ECG-JEPA's key of an encoder weight: ``blocks.3.qkv.weight`` has ``attn`` before ``qkv``."""
    *block, part, kind = name.split(".")
    return ".".join([*(["encoder_blocks"] if block else []), *block, PUBLISHED[part], kind])


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
        return dict(checkpoint.get("encoder", checkpoint))
    except Exception as error:  # a reader raises whatever a damaged file makes it trip over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EcgWeightsError(
            f"{path} cannot be read as ECG-JEPA weights ({reason}): fetch it again."
        ) from error


def _fault(weights: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> str | None:
    """What is wrong with keys and shapes, the first of each kind, or ``None``."""
    missing = [name for name in shapes if name not in weights]
    unexpected = [name for name in weights if name not in shapes]
    reshaped = [
        f"{name} is {tuple(getattr(weights[name], 'shape', ()))} and not {tuple(shape)}"
        for name, shape in shapes.items()
        if name in weights and getattr(weights[name], "shape", None) != shape
    ]
    faults = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", reshaped),
    )
    said = [f"{len(found)} {kind}, first {found[0]}" for kind, found in faults if found]
    return "; ".join(said) or None
