"""Time of one training step: ``DRPOTrainer`` beside TRL's own ``GRPOTrainer``.

Same model, data and settings, blocks of steps taken in turn in one run, image questions only (TRL's
trainer would drop the ECGs). DRPO's advantages and the keeping of rollouts are on. Prints the
median of each part in seconds and the ratio of the medians; the split is the wall time spent inside
each method.

    python benchmarks/step_time.py --questions 8 --rollouts 8 --side 112 --blocks 3 --steps 8
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from qoq_lib.data.phantom import make_phantom
from qoq_lib.model.loading import tiny_model
from qoq_lib.model.processing_qoq import suppressed_token_ids
from qoq_lib.training.drpo import PRESETS
from qoq_lib.training.questions import question_dataset
from qoq_lib.training.rewards import reward_functions
from qoq_lib.training.rollouts import RolloutWriter
from qoq_lib.training.trainer import DRPOTrainer

PARTS = {
    "prompts": "_tokenize_prompts",
    "generation": "_generate_single_turn",
    "rewards": "_calculate_rewards",
    "log-probabilities": "_get_per_token_logps_and_entropies",
    "step": "training_step",
}


def timed(kind: type[GRPOTrainer], times: dict[str, list[float]]) -> type[GRPOTrainer]:
    """``kind`` with a stopwatch around each of ``PARTS``."""

    def watch(part: str, name: str) -> Any:
        plain = getattr(kind, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return plain(self, *args, **kwargs)
            finally:
                times[part].append(time.perf_counter() - begin)

        return method

    return type(kind.__name__, (kind,), {name: watch(part, name) for part, name in PARTS.items()})


def questions(side: int, processor: Any) -> Dataset:
    """Image questions whose images the model sees at ``side`` pixels."""
    processor.image_processor.size = {"shortest_edge": side**2, "longest_edge": 4 * side**2}
    rows = make_phantom(240, seed=0).filter(lambda d: d != "ecg", input_columns="domain")
    rows = rows.map(lambda row: {"images": [im.resize((side, side)) for im in row["images"]]})
    return question_dataset(rows, processor.image_processor, "brief")


def build(kind: type[GRPOTrainer], options: argparse.Namespace, out: Path) -> GRPOTrainer:
    """A trainer over the tiny model; ``DRPOTrainer`` with DRPO and kept rollouts."""
    model, processor = tiny_model(0)
    functions, weights = reward_functions("paper")
    extra: dict[str, Any] = {}
    if issubclass(kind, DRPOTrainer):
        extra = {"drpo": PRESETS["recommended"], "rollouts": RolloutWriter(out / "rollouts")}
    per_step = options.questions * options.rollouts
    trainer = kind(
        model=model,
        args=GRPOConfig(
            output_dir=str(out),
            max_steps=options.steps,
            per_device_train_batch_size=per_step,
            num_generations=options.rollouts,
            max_completion_length=8,
            beta=0.0,
            learning_rate=1e-6,
            reward_weights=weights,
            generation_kwargs={"suppress_tokens": suppressed_token_ids(processor.tokenizer)},
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        reward_funcs=functions,
        train_dataset=questions(options.side, processor),
        processing_class=processor,
        **extra,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def main() -> None:
    """Train both in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--side", type=int, default=112, help="pixels of an image's side")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="steps of a block")
    options = parser.parse_args()
    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        trainers = {}
        for kind in (GRPOTrainer, DRPOTrainer):
            times[kind.__name__] = defaultdict(list)
            watched = timed(kind, times[kind.__name__])
            trainers[kind.__name__] = build(watched, options, Path(scratch) / kind.__name__)
        for _ in range(options.blocks):
            for trainer in trainers.values():
                trainer.train()
    report(times)


def report(times: dict[str, dict[str, list[float]]]) -> None:
    """Median seconds a step of each part, both trainers, and their ratio."""
    stock, ours = times["GRPOTrainer"], times["DRPOTrainer"]
    print(f"{'part':20}{'GRPOTrainer':>13}{'DRPOTrainer':>13}{'ratio':>8}")
    for part in PARTS:
        first, second = statistics.median(stock[part]), statistics.median(ours[part])
        print(f"{part:20}{first:>12.3f}s{second:>12.3f}s{second / first:>8.2f}")


if __name__ == "__main__":
    main()
