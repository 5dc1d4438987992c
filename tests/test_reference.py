"""The reference policy of full tuning where FSDP2 shares the weights out.

Run as a script (by torchrun, in each process) this file loads a checkpoint as ``accelerate launch``
has it loaded and asks the reference made of it.
"""

import copy
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin

from qoq_lib.data.phantom import make_phantom
from qoq_lib.model.loading import load_model, tiny_model
from qoq_lib.runs import project_root
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.questions import question_dataset
from qoq_lib.training.reference import prepare_reference
from qoq_lib.training.sharing import collate, read_prompts

ROOT = project_root()
KEEPING = "FSDP_CPU_RAM_EFFICIENT_LOADING"


def logits(model: Any, processor: Any, domain: str) -> torch.Tensor:
    """Of two questions, with ECGs or with images."""
    rows = make_phantom(200, seed=1).filter(
        lambda name: (name == "ecg") == (domain == "ecg"), input_columns="domain"
    )
    questions = question_dataset(rows.select(range(2)), processor.image_processor, "brief")
    prompts = read_prompts(processor, [row["prompt"] for row in questions], [0, 1])
    with torch.no_grad():
        return model(**collate(prompts, torch.device("cpu"), 0)).logits


@pytest.mark.parametrize("one_keeps", [False, True])
def test_every_process_asks_the_reference_that_was_read(tmp_path: Path, one_keeps: bool) -> None:
    """``accelerate launch`` itself has one process keep its weights, and zeros in the others."""
    launched = {"ACCELERATE_USE_FSDP": "true", KEEPING: str(one_keeps).lower()}
    model, processor = tiny_model(3)
    save_checkpoint(model, processor, tmp_path / "start")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", __file__, str(tmp_path)),
        ],
        env=os.environ | launched | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank, domain in enumerate(("ecg", "images")):
        seen = torch.load(tmp_path / f"{rank}.pt")
        expected = logits(model, processor, domain)
        assert torch.allclose(seen["logits"], expected, atol=1e-5)
        assert seen["read zeros"] == (one_keeps and rank == 1) and seen["share"] < 0.6


def test_in_one_process_the_reference_stays_as_it_is(tiny: Any) -> None:
    reference = copy.deepcopy(tiny[0])
    assert prepare_reference(Accelerator(cpu=True), reference) is reference
    assert not reference.model.touch_all_encoders


def test_no_process_fills_its_memory_with_zeros() -> None:
    for name in ("fsdp2", "multi_node"):
        config = load_config_from_file(str(ROOT / "configs" / "accelerate" / f"{name}.yaml"))
        assert config.fsdp_config["fsdp_cpu_ram_efficient_loading"] is False


def ask_the_reference(folder: Path) -> None:
    """Writes ``<rank>.pt``: the logits of unlike batches, and what this process holds."""
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = torch.distributed.get_rank()
    model, processor = load_model(folder / "start")
    whole = sum(weight.numel() for weight in model.parameters())
    read_zeros = not any(weight.any() for weight in model.parameters())
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[
            *("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock", "EcgBlock")
        ],
        reshard_after_forward=True,
        cpu_ram_efficient_loading=os.environ[KEEPING] == "true",
    )
    accelerator: Any = SimpleNamespace(  # accelerate itself has FSDP on accelerators alone
        is_fsdp2=True,
        state=SimpleNamespace(fsdp_plugin=plugin),
        mixed_precision="no",
        is_main_process=rank == 0,
        device=torch.device("cpu"),
        torch_device_mesh=None,
    )
    reference = prepare_reference(accelerator, model)
    held = sum(weight.to_local().numel() for weight in reference.parameters())
    seen = logits(reference, processor, ("ecg", "images")[rank])
    told = {"logits": seen, "read zeros": read_zeros, "share": held / whole}
    torch.save(told, folder / f"{rank}.pt")
    torch.distributed.barrier()


if __name__ == "__main__":
    ask_the_reference(Path(sys.argv[1]))
