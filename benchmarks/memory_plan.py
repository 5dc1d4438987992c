"""The memory plan of notebook 03 beside what one training step really asks for.

    python benchmarks/memory_plan.py                  # a CPU: tensors with shapes and no values
    python benchmarks/memory_plan.py --device cuda    # a GPU: random weights, PyTorch's own peak
    python benchmarks/memory_plan.py --table          # the tables of docs/scaling.md

The step is the package's own: prompts read once for all their rollouts, LoRA adapters, gradient
checkpointing, log-probabilities of every new token, backward; and, without gradients, the reading
of all prompts and the last decoding step of all rollouts. On a CPU its tensors are PyTorch's fake
ones: they have a shape, a type and a lifetime but no values, so that a 7B model fits a laptop. That
tells what the step keeps alive; it sees neither the CUDA context, nor fragmentation, nor the
scratch memory of CUDA's kernels.
"""

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pandas as pd
import torch
from fake_tensors import Kept, Meter, fake
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import DynamicCache
from trl.trainer.utils import selective_log_softmax

from qoq_lib.model.loading import load_size
from qoq_lib.training import sharing
from qoq_lib.training.generation.attention import reading_shared_heads
from qoq_lib.training.methods import load_method
from qoq_lib.training.planning.counting import Counts, adapted, hollow_model, shrunk, size_config
from qoq_lib.training.planning.memory import (
    MOMENTS,
    Load,
    rollout_needs,
    update_needs,
    weight_needs,
)
from qoq_lib.training.planning.plan import GIB, make_plan

TABLES = (
    ("7b", 1, "ddp"),
    ("32b", 8, "fsdp2"),
    ("32b", 8, "zero3"),
    ("32b", 16, "fsdp2"),
)


class GpuMeter:
    """The same of a GPU, from PyTorch's allocator."""

    def __enter__(self) -> "GpuMeter":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def add(self, tensors: Any) -> None:
        """The allocator has counted them."""

    def reset(self) -> None:
        """Forget the peak."""
        torch.cuda.reset_peak_memory_stats()

    @property
    def live(self) -> int:
        """Bytes that are allocated."""
        return torch.cuda.memory_allocated()

    @property
    def peak(self) -> int:
        """The most since ``reset``."""
        return torch.cuda.max_memory_allocated()


def build(config: Any, parts: Sequence[Any], device: str) -> tuple[Any, Counts]:
    """The model with adapters in bfloat16, ready to train; its weights mean nothing."""
    with unset_fake_temporarily():
        model, counts = adapted(hollow_model(config, "bfloat16"), "lora", parts)
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is None:
                continue
            if id(weight) not in made:
                empty = torch.zeros(weight.shape, dtype=weight.dtype, device=device)
                made[id(weight)] = torch.nn.Parameter(empty, weight.requires_grad)
            module._parameters[name] = made[id(weight)]
        for name, buffer in module._buffers.items():
            module._buffers[name] = torch.ones(buffer.shape, dtype=buffer.dtype, device=device)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model, counts


def make_prompt(config: Any, shape: argparse.Namespace, device: str) -> sharing.Prompt:
    """``images`` of ``side`` x ``side`` patches, an ECG, and ``text`` tokens."""
    images, side = shape.images, shape.side
    image = [config.vision_start_token_id, *[config.image_token_id] * (side // 2) ** 2]
    ecg = [config.ecg_token_id] * config.ecg_config.out_tokens
    ids = torch.tensor([*image * images, *ecg, *range(100, 100 + shape.text)])
    vision, leads = config.vision_config, config.ecg_config.leads
    pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    media = {
        "pixel_values": torch.zeros(images * side**2, pixels, device=device),
        "image_grid_thw": torch.tensor([[1, side, side]] * images),
        "ecg_values": torch.ones(1, leads, config.ecg_config.samples, device=device),
    }
    return sharing.Prompt(ids, (ids == config.image_token_id).long(), media, [])


def update(model: Any, meter: Any, prompts: list[Any], group: int, answer: int) -> list[int]:
    """Peaks above what was there before: ``group`` rollouts a prompt scored, and their backward."""
    model.train()
    device = model.device
    rows = torch.tensor([[100] * (len(prompts[0].input_ids) + answer)] * (group * len(prompts)))
    rows = rows.to(device)

    def under_autocast(**inputs: Any) -> Any:  # as accelerate prepares a model
        with torch.autocast(device.type, torch.bfloat16):
            output = model(**inputs)
        output.logits = output.logits.float()
        return output

    owners = [prompt for prompt in prompts for _ in range(group)]
    shared = sharing.SharedPrompts(under_autocast, sharing.backbone_of(model), owners, 0)

    def after_logits(_: Any, given: tuple[torch.Tensor]) -> None:
        given[0].register_hook(lambda _: meter.reset())

    sharing.backbone_of(model).language_model.norm.register_forward_pre_hook(after_logits)
    before = meter.live
    meter.reset()
    with meter:
        logits = shared(rows, torch.ones_like(rows), answer + 1, use_cache=False).logits[:, :-1]
        on_gpu = device.type == "cuda"
        score = selective_log_softmax(logits, rows[:, -answer:]) if on_gpu else Kept.apply(logits)
        del logits
        scoring = meter.peak
        score.sum().backward()
    return [scoring - before, meter.peak - before]


@torch.no_grad()
def rollouts(model: Any, meter: Any, prompts: list[Any], copies: int, answer: int) -> list[int]:
    """Peaks above what was there before: of reading the prompts, of the last decoding step."""
    model.eval()
    device = model.device
    batch = sharing.collate(prompts, device, 0)
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    head = batch | {name: batch[name][:, :-1] for name in names}
    place = sharing.positions(sharing.backbone_of(model), batch)
    before = meter.live
    meter.reset()
    with meter, torch.autocast(device.type, torch.bfloat16):
        output = model(**head, position_ids=place[..., :-1], use_cache=True, logits_to_keep=1)
        reading, cache = meter.peak, DynamicCache()
        length = place.shape[-1] + answer - 1
        for index, layer in enumerate(output.past_key_values.layers):
            shape = (copies * len(prompts), layer.keys.shape[1], length, layer.keys.shape[3])
            keys = torch.zeros(shape, dtype=layer.keys.dtype, device=device)
            cache.update(keys, torch.zeros_like(keys), index)
        meter.reset()
        with reading_shared_heads(model):
            model(
                input_ids=torch.ones(copies * len(prompts), 1, dtype=torch.long, device=device),
                attention_mask=torch.ones(copies * len(prompts), length + 1, device=device).long(),
                position_ids=place[..., -1:].repeat_interleave(copies, dim=1),
                past_key_values=cache,
                use_cache=True,
            )
    return [reading - before, meter.peak - before]


def compare(name: str, device: str, shape: argparse.Namespace) -> pd.DataFrame:
    """Bytes planned and found, weights included, and their ratio; a row per moment."""
    size = load_size(name)
    config = size_config(size)
    config = shrunk(config, shape.layers) if shape.layers else config
    meter: Any = Meter() if device == "cpu" else GpuMeter()
    with fake(shape.side) if device == "cpu" else nullcontext():
        model, counts = build(config, size.trainable, device)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in trained:
            weight.grad = torch.zeros_like(weight)
        moments = [[torch.zeros_like(w), torch.zeros_like(w)] for w in trained]  # AdamW's
        meter.add([*model.parameters(), *(weight.grad for weight in trained), *moments])
        resident = meter.live
        meter.add([*model.buffers()])
        prompts = [make_prompt(config, shape, device) for _ in range(shape.questions)]
        meter.add([list(prompt.media.values()) for prompt in prompts])
        length = len(prompts[0].input_ids)
        found = rollouts(model, meter, prompts, shape.rollouts, shape.answer)
        found += update(model, meter, prompts[:1], shape.rollouts, shape.answer)
    scored = 1 + shape.rollouts * shape.answer
    load = Load(
        questions=shape.questions,
        rows=shape.questions * shape.rollouts,
        prompt=length,
        answer=shape.answer,
        patches=shape.images * shape.side**2,
        ecgs=1,
        packed=(1, shape.rollouts),
        scored=scored,
    )
    needs = [
        weight_needs(counts, 1, "ddp", gather=False),
        rollout_needs(config, load, 2, kept=False),
        update_needs(config, load, 2, size.trainable, checkpointing=True),
    ]
    planned = [sum(part.get(m, 0) for need in needs for part in need.values()) for m in MOMENTS]
    table = pd.DataFrame({"planned": planned, "found": found}, index=list(MOMENTS)) / GIB
    table["found"] += resident / GIB
    table.loc["weights, gradients, AdamW"] = [
        sum(part["reading"] for part in needs[0].values()) / GIB,
        resident / GIB,
    ]
    return table.assign(ratio=table["planned"] / table["found"])


def tables() -> str:
    """The plans of ``TABLES`` in Markdown."""
    texts = []
    for name, processes, parallel in TABLES:
        plan = make_plan(
            load_size(name), load_method("drpo"), processes=processes, parallel=parallel
        )
        lines = [f"**{name}, {processes} GPU(s){f', {parallel}' if processes > 1 else ''}**", ""]
        lines += ["| GiB on each GPU | " + " | ".join(plan.table.columns) + " |"]
        lines += ["|---|" + "---|" * len(plan.table.columns)]
        for part, row in plan.table.iterrows():
            lines.append(f"| {part} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def main(arguments: list[str] | None = None) -> None:
    """Compare and print, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the plans of docs/scaling.md")
    parser.add_argument("--size", default="7b", choices=["3b", "7b", "32b"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--layers", type=int, default=0, help="of text and vision; 0: all")
    parser.add_argument("--images", type=int, default=1, help="per question")
    parser.add_argument("--side", type=int, default=46, help="of an image, in patches of 14 pixels")
    parser.add_argument("--text", type=int, default=464, help="tokens beside the media")
    parser.add_argument("--answer", type=int, default=256, help="new tokens")
    parser.add_argument("--questions", type=int, default=16, help="read together")
    parser.add_argument("--rollouts", type=int, default=8, help="per question")
    given = parser.parse_args(arguments)
    if given.table:
        print(tables())
        return
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no NVIDIA GPU is visible: leave --device out.")
    print(compare(given.size, given.device, given).round(3).to_string())


if __name__ == "__main__":
    main()
