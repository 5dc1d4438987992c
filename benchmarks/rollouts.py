"""Time of the rollouts of one batch by transformers, three ways in turn in one run.

    python benchmarks/rollouts.py                              # tiny, CPU
    python benchmarks/rollouts.py --size 7b --device cuda --side 16 --rollouts 8 --new 256

Sixteen questions, random weights, as a batch mixes them: twelve with one image, two with an ECG,
two with a volume of eight images. ``together`` reads all prompts padded to the longest, ``buckets``
reads those of like length together, ``static`` decodes in a static cache as well, with the compiled
step (the first round, which compiles, is not counted). Prints medians and their ratio to the first.
"""

import argparse
import math
import time
from statistics import median
from typing import Any

import torch
from step.trainers import random_model
from transformers import CompileConfig, GenerationConfig

from qoq_lib.model.loading import load_size
from qoq_lib.training.generation.decoding import Decoder, buckets
from qoq_lib.training.generation.sampling import rollout_keys
from qoq_lib.training.sharing import Prompt

TEXT = 60  # tokens of a question


def prompt(model: Any, images: int, side: int, ecgs: int, seed: int) -> Prompt:
    """A question with ``images`` of ``side`` x ``side`` tokens each and ``ecgs``."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    merge, patch = config.vision_config.spatial_merge_size, config.vision_config.patch_size
    channels = config.vision_config.in_channels * config.vision_config.temporal_patch_size
    image = [config.vision_start_token_id, *[config.image_token_id] * side**2]
    ecg = [config.ecg_token_id] * config.ecg_config.out_tokens
    special = {config.image_token_id, config.ecg_token_id, config.vision_start_token_id}
    allowed = torch.tensor([n for n in range(20, 200) if n not in special])
    words = allowed[torch.randint(len(allowed), (TEXT + seed,), generator=generator)].tolist()
    ids = torch.tensor([*image * images, *ecg * ecgs, *words])
    media = {}
    if images:
        patches = (side * merge) ** 2
        media["pixel_values"] = torch.randn(
            images * patches, channels * patch**2, generator=generator
        )
        media["image_grid_thw"] = torch.tensor([[1, side * merge, side * merge]] * images)
    if ecgs:
        leads, samples = config.ecg_config.leads, config.ecg_config.samples
        media["ecg_values"] = torch.randn(ecgs, leads, samples, generator=generator)
    return Prompt(ids, (ids == config.image_token_id).long(), media, [])


def questions(model: Any, side: int) -> list[Prompt]:
    """Two with an ECG, twelve with an image, two with a volume."""
    kinds = [(0, 1)] * 2 + [(1, 0)] * 12 + [(8, 0)] * 2
    return [prompt(model, n, side, ecgs, seed) for seed, (n, ecgs) in enumerate(kinds)]


def main() -> None:
    """Sample the batch in each way, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="tiny", choices=["tiny", "3b", "7b"])
    parser.add_argument("--device", default="cpu", choices=["cuda", "cpu"])
    parser.add_argument("--side", type=int, default=8, help="tokens of an image's side")
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--new", type=int, default=16, help="tokens of a rollout")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    device = torch.device(given.device)
    # On a CPU the time of this process alone: others may run beside it.
    clock = time.process_time if given.device == "cpu" else time.perf_counter
    model = random_model(load_size(given.size), device)[0].eval()
    asked = questions(model, given.side)
    lengths = [len(each.input_ids) for each in asked]
    rows = [each for each in asked for _ in range(given.rollouts)]
    keys = rollout_keys(0, 0, 0, len(rows), device)
    config = GenerationConfig(
        do_sample=True, top_k=0, min_new_tokens=given.new, max_new_tokens=given.new, pad_token_id=0
    )
    config.compile_config = CompileConfig()
    config.compile_config._compile_all_devices = True
    ways = {
        "together": Decoder(device, 0, bucket_cost=math.inf),
        "buckets": Decoder(device, 0),
        "static": Decoder(device, 0, static=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.rounds + 1):
        for name, decoder in ways.items():
            begin = clock()
            decoder.generate(model, rows, config, keys).cpu()
            seconds[name].append(clock() - begin)
    padded = sum(max(lengths[i] for i in each) * len(each) for each in buckets(lengths))
    print(f"prompt tokens {sum(lengths)}: {max(lengths) * len(lengths)} together, {padded} buckets")
    first = median(seconds["together"][1:])
    for name, times in seconds.items():
        rate = len(rows) * given.new / median(times[1:])
        print(f"{name:10}{median(times[1:]):9.3f} s{rate:11.1f} tokens/s", end="")
        print(f"{median(times[1:]) / first:8.2f} of the time")


if __name__ == "__main__":
    main()
