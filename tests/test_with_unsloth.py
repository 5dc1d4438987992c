"""Training as unsloth is made to do it, on stock TRL: unsloth itself runs on GPUs alone."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from trl import GRPOConfig

from qoq_lib.data.assemble import assemble
from qoq_lib.data.phantom import make_phantom
from qoq_lib.model.loading import load_model, load_size, tiny_model
from qoq_lib.runs import project_root
from qoq_lib.training.backend import BackendError, refuse_ecgs
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.job import CONFIG_FILE, TrainingJob
from qoq_lib.training.launch import train
from qoq_lib.training.methods import load_method
from qoq_lib.training.questions import question_dataset
from qoq_lib.training.rewards import reward_functions
from qoq_lib.training.rollouts import RolloutWriter, read_rollouts
from qoq_lib.training.trainer import DRPOTrainer
from qoq_lib.training.with_unsloth import UnslothDRPOTrainer


@pytest.fixture(scope="module")
def questions() -> Dataset:
    rows = make_phantom(200, seed=1)
    return rows.filter(lambda split: split == "train", input_columns="split")


@pytest.fixture(scope="module")
def images(questions: Dataset) -> Dataset:
    return questions.filter(lambda name: name != "ecg", input_columns="domain").select(range(4))


def job(start: Path, **changes: Any) -> TrainingJob:
    size = load_size("tiny").model_copy(update={"tuning": "lora"})
    plan = {"steps": 2, "questions_per_step": 4, "rollouts": 2, "micro_batch": 8, "beta": 0.1}
    size.training = size.training.model_copy(update=plan)
    values = {"start": start, "size": size, "method": load_method("drpo"), "backend": "unsloth"}
    return TrainingJob(**values | changes)


def test_ecgs_are_refused_in_one_sentence(questions: Dataset, images: Dataset) -> None:
    ecgs = sum(domain == "ecg" for domain in questions["domain"])
    with pytest.raises(
        BackendError, match=rf"cannot train on ECGs.* {ecgs} of the {len(questions)}"
    ):
        refuse_ecgs("unsloth", questions)
    refuse_ecgs("peft", questions)
    refuse_ecgs("unsloth", images)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": load_size("tiny")}, "trains adapters: set tuning to lora or qlora"),
        ({"method": load_method("sft")}, "learns from rewards here"),
        ({"processes": 2}, "trains in one process: set num_processes to 1"),
        ({"rollout": "vllm"}, "samples with transformers here"),
    ],
)
def test_what_unsloth_cannot_do_here_is_refused_before_anything_is_loaded(
    images: Dataset, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BackendError, match=f"{said}.*, or use backend 'peft'"):
        train(job(tmp_path / "nothing", **changes), images, tmp_path)


class Prescribed:
    """Completions that do not depend on how they would be sampled: each option in turn."""

    def _calculate_rewards(self: Any, inputs: list, prompts: list, said: list, *rest: Any) -> Any:
        texts = [chat[0]["content"] for chat in said]  # what unsloth hands over
        plain = isinstance(self, UnslothDRPOTrainer)
        return super()._calculate_rewards(inputs, prompts, texts if plain else said, *rest)

    def _generate_single_turn(self: Any, prompt_ids: list, *_: Any) -> tuple:
        tokenizer = self.processing_class.tokenizer
        texts = []
        for index, (_, question) in enumerate(self._questions):
            options = question.split("Options: ")[1].split("; ")
            texts.append(f"\\boxed{{{options[index % len(options)]}}}")
        return [tokenizer(text + "<|im_end|>")["input_ids"] for text in texts], None


def first_step(kind: type, images: Dataset, out: Path) -> tuple[dict[str, float], Any]:
    """The log of one optimiser step on adapters that already differ from the base."""
    torch.manual_seed(0)
    model, processor = tiny_model(0)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=r".*layers\.\d+\..*_proj"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            weight += 0.05 * torch.randn_like(weight) if "lora_" in name else 0
    functions, weights = reward_functions("paper")
    trainer = type("Sampled", (Prescribed, kind), {})(
        model=adapted,
        args=GRPOConfig(
            output_dir=str(out),
            max_steps=1,
            per_device_train_batch_size=8,
            num_generations=2,
            max_completion_length=16,
            beta=0.1,
            reward_weights=weights,
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
        ),
        reward_funcs=functions,
        train_dataset=question_dataset(images, processor.image_processor, "brief"),
        processing_class=processor,
        rollouts=RolloutWriter(out / "rollouts"),
    )
    trainer.train()
    return trainer.state.log_history[0], read_rollouts(out / "rollouts")


def test_without_sharing_a_step_is_the_same(images: Dataset, tmp_path: Path) -> None:
    shared, kept = first_step(DRPOTrainer, images, tmp_path / "shared")
    alone, kept_alone = first_step(UnslothDRPOTrainer, images, tmp_path / "alone")
    for name in ("loss", "grad_norm", "entropy", "reward"):
        assert alone[name] == pytest.approx(shared[name], rel=1e-3, abs=1e-6), name
    assert alone["kl"] == 0  # rows of the policy's pass are those of the reference's, shuffled
    assert np.ptp(kept["advantage"]) > 0
    assert kept_alone["advantage"].tolist() == pytest.approx(kept["advantage"].tolist(), rel=1e-3)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module ``unsloth`` that loads with transformers and adapts with peft."""
    module: Any = ModuleType("unsloth")

    class FastVisionModel:
        @staticmethod
        def from_pretrained(model_name: str, **_: Any) -> tuple:
            return load_model(model_name)

        @staticmethod
        def get_peft_model(model: Any, **told: Any) -> Any:
            chosen = ("r", "lora_alpha", "target_modules", "modules_to_save")
            return get_peft_model(model, LoraConfig(**{name: told[name] for name in chosen}))

    module.FastVisionModel = FastVisionModel
    monkeypatch.setitem(sys.modules, "unsloth", module)


def test_a_job_trains_adapters_and_leaves_them(
    stand_in: None, images: Dataset, questions: Dataset, tmp_path: Path
) -> None:
    start, run = tmp_path / "start", tmp_path / "run"
    save_checkpoint(*tiny_model(0), start)
    run.mkdir()
    log = train(job(start), images, run)[2]
    assert len(log) == 2 and log["kl"].iloc[0] == 0
    assert len(read_rollouts(run / "rollouts")) == 2 * 4 * 2
    assert (run / "checkpoints" / "trained" / "adapter_config.json").exists()
    load_model(run / "checkpoints" / "trained")
    with pytest.raises(BackendError, match="cannot train on ECGs"):
        train(job(start), questions, run)


STAND_IN = """
import sys

print("before unsloth:", [name for name in ("transformers", "peft", "trl") if name in sys.modules])


class FastVisionModel:
    @staticmethod
    def from_pretrained(model_name, **_):
        from qoq_lib.model.loading import load_model

        return load_model(model_name)

    @staticmethod
    def get_peft_model(model, **told):
        from peft import LoraConfig, get_peft_model

        chosen = ("r", "lora_alpha", "target_modules", "modules_to_save")
        return get_peft_model(model, LoraConfig(**{name: told[name] for name in chosen}))
"""
WITH_A_GPU = """
import runpy
from qoq_lib.training import backend

backend._gpu_is_visible = lambda: True
runpy.run_module("qoq_lib.training.launch", run_name="__main__", alter_sys=True)
"""


def test_a_job_is_started_as_a_module_with_unsloth_before_what_it_patches(tmp_path: Path) -> None:
    start, run, own, lib = (tmp_path / name for name in ("start", "run", "own", "lib"))
    for number in range(24):
        picture = own / ("naevus", "melanoma")[number % 2] / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (56, 56), (10 * number, 0, 90)).save(picture)
    assemble("folder", run / "data", data_root=own, domain="dermoscopy")
    save_checkpoint(*tiny_model(0), start)
    job(start).save(run)
    lib.mkdir()
    (lib / "unsloth.py").write_text(STAND_IN)
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_GPU, "--config", str(run / CONFIG_FILE)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(project_root()), str(lib)])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "before unsloth: []" in done.stdout
    assert (run / "checkpoints" / "trained" / "adapter_config.json").exists()
