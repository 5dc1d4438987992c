"""What the ECG path costs where there is no ECG: QoQ against Qwen2.5-VL with the same weights.

Times forward + backward of one image-only batch at tiny size on the CPU, in interleaved pairs whose
order alternates, and prints the median of the pairs' ratios; then one call that encodes 32 ECGs.

    python benchmarks/forward_ratio.py [--pairs 60] [--rows 8]
"""

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from qoq_lib.data.phantom import make_phantom
from qoq_lib.data.prompts import to_messages
from qoq_lib.model.tiny import tiny_model

WARM_UPS, ECGS = 3, 32


def qwen_twin(model: Any) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL with the weights that ``model`` shares with it."""
    values = model.config.to_dict()
    for name in ("ecg_config", "ecg_token_id", "model_type", "architectures", "auto_map"):
        values.pop(name, None)
    twin = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**values)).eval()
    missing, _ = twin.load_state_dict(model.state_dict(), strict=False)
    if missing:
        raise RuntimeError(f"The twin lacks weights: {missing}.")
    return twin


def image_batch(processor: Any, rows: int) -> Any:
    """``rows`` phantom questions with images and no ECG, as the model takes them."""
    phantom = [row for row in make_phantom(180 + 2 * rows, seed=0) if row["images"]]
    inputs = processor.apply_chat_template(
        [to_messages(row, "brief") for row in phantom[:rows]],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    return {**inputs, "labels": inputs["input_ids"]}


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int) -> list[float]:
    """Ratios ours / theirs; each pair runs back to back, so that a busy machine slows both."""
    ratios = []
    for pair in range(pairs):
        order = (ours, theirs) if pair % 2 else (theirs, ours)
        taken = {work: seconds(work) for work in order}
        ratios.append(taken[ours] / taken[theirs])
    return ratios


def main() -> None:
    """Run both measurements and print them with the machine's particulars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--rows", type=int, default=8)
    options = parser.parse_args()
    model, processor = tiny_model(0)
    batch = image_batch(processor, options.rows)

    def step(network: Any) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            network.zero_grad(set_to_none=True)
            loss = network(**batch).loss
            loss.backward()
            return loss.detach()

        return run

    ours, theirs = step(model), step(qwen_twin(model))
    if not torch.equal(ours(), theirs()):
        raise RuntimeError("The two losses differ: the comparison would be of different work.")
    interleaved(ours, theirs, WARM_UPS)
    ratios = interleaved(ours, theirs, options.pairs)
    low, _, high = quantiles(ratios, n=4)
    print(f"torch {torch.__version__} on {platform.machine()}, threads: {torch.get_num_threads()}")
    print(
        f"forward + backward, {options.rows} image rows: QoQ / Qwen2.5-VL = {median(ratios):.4f} "
        f"(median of {options.pairs} pairs, quartiles {low:.4f} to {high:.4f})"
    )
    signals = torch.randn(ECGS, model.config.ecg_config.leads, model.config.ecg_config.samples)
    with torch.no_grad():
        times = [seconds(lambda: model.model.get_ecg_features(signals)) for _ in range(WARM_UPS)]
    print(f"{ECGS} ECGs encoded in one call: {1000 * min(times):.0f} ms (best of {WARM_UPS})")


if __name__ == "__main__":
    main()
