"""Run as a script: a process without qoq_lib, which has the checkpoints' own code and no other.

Its arguments are checkpoint folders; it writes ``<name of the folder>.npz`` where it is started.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor


@torch.no_grad()
def answer(folder: Path | str, **options: bool) -> dict[str, np.ndarray]:
    """Logits and greedy answers to a chat with an image and an ECG, and to one with neither."""
    model = AutoModelForImageTextToText.from_pretrained(folder, **options).eval()
    processor = AutoProcessor.from_pretrained(folder, **options)
    beats = np.sin(np.arange(2500) * np.linspace(0.01, 0.3, 8)[:, None]) ** 9
    content = [
        {"type": "image", "image": Image.linear_gradient("L").convert("RGB")},
        {"type": "ecg", "ecg": beats, "rate_hz": 250.0},
        {"type": "text", "text": "What do the picture and the ECG show?"},
    ]
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": content}], [{"role": "user", "content": "And now?"}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    return {
        "logits": model(**inputs).logits.numpy(),
        "tokens": tokens.numpy(),
        "suppressed": np.array(model.generation_config.suppress_tokens),
    }


if __name__ == "__main__":
    sys.modules["qoq_lib"] = None  # type: ignore[assignment] # "import qoq_lib" now fails
    try:
        import qoq_lib  # noqa: F401
    except ModuleNotFoundError:
        for folder in sys.argv[1:]:
            np.savez(Path(folder).name, **answer(folder, trust_remote_code=True))
