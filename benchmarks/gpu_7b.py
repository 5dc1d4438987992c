"""Speed and memory of one model on one GPU: random weights, so nothing is downloaded.

    python benchmarks/gpu_7b.py                          # 7B on the GPU; adds a row to the results
    python benchmarks/gpu_7b.py --size tiny --device cpu # does it run at all? writes nothing

A prompt of 1,000 tokens (an image of 644 x 644 pixels, one ECG, text) and 64 new ones, in bfloat16:
reading the prompt, decoding, a forward pass over all 1,064 tokens, and forward and backward with
LoRA adapters and gradient checkpointing. Each is the median of three runs after one that is not
counted. On a GPU the row goes to ``docs/gpu_results.md``.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import get_peft_model

from qoq_lib.model.loading import load_size, tiny_model
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.model.tuning import prepare
from qoq_lib.runs import Environment, write_text_atomic

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "gpu_results.md"
NONE_YET = "No measurement has been made yet.\n"
PROMPT, NEW, REPEATS = 1000, 64, 3
GRID = 46  # patches of 14 pixels a side of the image


@dataclass(frozen=True)
class Measured:
    """Seconds (median) and peak memory of the GPU in GiB (``None`` on a CPU) of one stage."""

    stage: str
    tokens: int
    seconds: float
    peak_gib: float | None

    def __str__(self) -> str:
        peak = "" if self.peak_gib is None else f", peak {self.peak_gib:.1f} GiB"
        return f"{self.stage}: {self.tokens / self.seconds:,.1f} tokens/s{peak}"


def build(size: str, device: str) -> Any:
    """The model in bfloat16 on ``device``, weights random."""
    if size == "tiny":
        return tiny_model(0)[0].to(device, torch.bfloat16)
    return QoQForConditionalGeneration.from_base(
        load_size(size).base, dtype=torch.bfloat16, device_map=device, random_weights=True
    )


def make_inputs(model: Any, length: int) -> dict[str, torch.Tensor]:
    """``length`` tokens: an image, an ECG, and random text, as the processor would give them."""
    config = model.config
    generator = torch.Generator().manual_seed(0)
    merge, patch = config.vision_config.spatial_merge_size, config.vision_config.patch_size
    image = [config.image_token_id] * (GRID // merge) ** 2
    ecg = [config.ecg_token_id] * config.ecg_config.out_tokens
    media = [config.vision_start_token_id, *image, config.vision_end_token_id, *ecg]
    special = {*media, *model.generation_config.suppress_tokens}
    allowed = torch.tensor([n for n in range(config.text_config.vocab_size) if n not in special])
    drawn = torch.randint(len(allowed), (length - len(media),), generator=generator)
    ids = torch.tensor([[*media, *allowed[drawn].tolist()]])
    channels = config.vision_config.in_channels * config.vision_config.temporal_patch_size
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config.image_token_id).long(),
        "pixel_values": torch.randn(GRID**2, channels * patch**2, generator=generator),
        "image_grid_thw": torch.tensor([[1, GRID, GRID]]),
        "ecg_values": torch.randn(
            1, config.ecg_config.leads, config.ecg_config.samples, generator=generator
        ),
        "ecg_counts": torch.tensor([1]),
    }
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def measure(stage: str, tokens: int, work: Callable[[], Any], device: str) -> Measured:
    """Run ``work`` once to warm up and ``REPEATS`` times by the clock."""
    on_gpu = torch.device(device).type == "cuda"
    work()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(REPEATS):
        begin = _now(on_gpu)
        work()
        seconds.append(_now(on_gpu) - begin)
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    return Measured(stage, tokens, median(seconds), peak)


def _now(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_all(size: str, device: str) -> list[Measured]:
    """All stages, inference first: the adapters change the model."""
    model = build(size, device)
    prompt, whole = make_inputs(model, PROMPT), make_inputs(model, PROMPT + NEW)

    @torch.no_grad()
    def generate(count: int) -> None:
        model.generate(**prompt, do_sample=False, min_new_tokens=count, max_new_tokens=count)

    @torch.no_grad()
    def forward() -> None:
        model(**whole)

    one = measure("prompt", PROMPT, lambda: generate(1), device)
    both = measure("prompt and decoding", NEW, lambda: generate(NEW), device)
    decoding = Measured("decoding", NEW - 1, both.seconds - one.seconds, both.peak_gib)
    return [
        one,
        decoding,
        measure("forward", PROMPT + NEW, forward, device),
        measure("LoRA forward and backward", PROMPT + NEW, _training(model, size, whole), device),
    ]


def _training(model: Any, size: str, inputs: dict[str, torch.Tensor]) -> Callable[[], None]:
    parts = load_size(size).trainable
    adapted = get_peft_model(model, prepare(model, "lora", parts))
    adapted.gradient_checkpointing_enable()
    adapted.enable_input_require_grads()
    adapted.train()
    labels = inputs["input_ids"].clone()
    labels[:, :PROMPT] = -100  # the loss sees the new tokens alone, as in training

    def step() -> None:
        adapted(**inputs, labels=labels, use_cache=False).loss.backward()
        adapted.zero_grad(set_to_none=True)

    return step


def record(path: Path, size: str, device_name: str, results: list[Measured]) -> None:
    """Append a row to the table at the end of ``path``; the first takes the place of the note."""
    git = Environment.collect().git
    commit = "unknown" if git["sha"] is None else git["sha"][:10] + ("+" if git["dirty"] else "")
    cells = [f"{datetime.now(UTC):%Y-%m-%d}", commit, device_name, size]
    cells += [f"{each.tokens / each.seconds:,.1f}" for each in results]
    cells += [f"{each.peak_gib or 0:.1f}" for each in (results[1], results[-1])]
    text = path.read_text(encoding="utf-8").replace(NONE_YET + "\n", "")
    write_text_atomic(path, f"{text.rstrip()}\n| {' | '.join(cells)} |\n")


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and on a GPU record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="7b", choices=["tiny", "3b", "7b", "32b"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no NVIDIA GPU is visible: run on a GPU machine, or pass --device cpu.")
    results = measure_all(given.size, given.device)
    for result in results:
        print(result)
    if given.device == "cuda":
        record(RESULTS, given.size, torch.cuda.get_device_name(), results)


if __name__ == "__main__":
    main()
