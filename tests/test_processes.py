"""One process and two, on the same global batch, compute the same advantages.

Run as a script (by torchrun, in each process) this file trains for two steps and leaves rollouts.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

QUESTIONS, ROLLOUTS, STEPS = 4, 4, 2
ROOT = Path(__file__).resolve().parents[1]


def train(out: Path, processes: int) -> None:
    """Two steps on rows of which some have an image, some an ECG, with prescribed completions."""
    from datasets import concatenate_datasets
    from trl import GRPOConfig

    from qoq_lib.data.phantom import make_phantom
    from qoq_lib.model.loading import tiny_model
    from qoq_lib.training.drpo import PRESETS
    from qoq_lib.training.questions import question_dataset
    from qoq_lib.training.rewards import reward_functions
    from qoq_lib.training.rollouts import RolloutWriter
    from qoq_lib.training.trainer import DRPOTrainer

    class Prescribed(DRPOTrainer):
        """Sampling differs between one process and two; what is sampled must not, here."""

        def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple:
            first = self.accelerator.process_index * len(prompt_ids)
            tokenizer = self.processing_class.tokenizer
            texts = []
            for index, (identifier, question) in enumerate(self._questions, start=first):
                options = question.split("Options: ")[1].split("; ")
                texts.append(f"\\boxed{{{options[(index + len(identifier)) % len(options)]}}}")
            return [tokenizer(text + "<|im_end|>")["input_ids"] for text in texts], None

    rows = make_phantom(200, seed=1).filter(lambda s: s == "train", input_columns="split")
    ecgs = rows.filter(lambda d: d == "ecg", input_columns="domain").select(range(4))
    images = rows.filter(lambda d: d != "ecg", input_columns="domain").select(range(4))
    model, processor = tiny_model(0)
    functions, weights = reward_functions("paper")
    trainer = Prescribed(
        model=model,
        args=GRPOConfig(
            output_dir=str(out / "trainer"),
            max_steps=STEPS,
            per_device_train_batch_size=QUESTIONS * ROLLOUTS // processes,
            num_generations=ROLLOUTS,
            max_completion_length=8,
            beta=0.1,
            reward_weights=weights,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        reward_funcs=functions,
        train_dataset=question_dataset(
            concatenate_datasets([ecgs, images]), processor.image_processor, "brief"
        ),
        processing_class=processor,
        drpo=PRESETS["recommended"],
        rollouts=RolloutWriter(out / "rollouts"),
    )
    trainer.train()


def launched(out: Path, processes: int) -> pd.DataFrame:
    """Rollouts of the script in one process, or in two that torchrun starts."""
    from qoq_lib.training.rollouts import read_rollouts

    out.mkdir()
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    start = [sys.executable, *(many if processes > 1 else [])]
    done = subprocess.run(
        [*start, __file__, str(out), str(processes)],
        cwd=out,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,  # ranks that wait for each other would wait for ever
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return read_rollouts(out / "rollouts").sort_values(["step", "id", "sample"])


def test_two_processes_compute_the_advantages_of_one(tmp_path: Path) -> None:
    one, two = launched(tmp_path / "one", 1), launched(tmp_path / "two", 2)
    assert len(one) == STEPS * QUESTIONS * ROLLOUTS
    assert set(one["domain"]) >= {"ecg"} and len(set(one["domain"])) > 1
    assert one["advantage"].abs().max() > 0
    for column in ("step", "id", "sample", "completion", "cluster"):
        assert one[column].tolist() == two[column].tolist()
    for column in ("reward", "advantage", "weight"):
        assert np.abs(one[column].to_numpy() - two[column].to_numpy()).max() <= 1e-6


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]))
