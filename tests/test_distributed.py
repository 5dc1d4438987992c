"""Several processes: they train what one trains, and none waits for another for ever.

Run as a script (by torchrun, in each process) this file reads a batch of images in one process and
of ECGs in the other, with the weights shared out.
"""

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from test_notebooks_run import execute, printed

from qoq_lib.data.assemble import assemble, load_assembled
from qoq_lib.model.loading import AlignmentPlan, load_size, tiny_model
from qoq_lib.runs import project_root
from qoq_lib.training.align import align
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.distributed import command
from qoq_lib.training.job import CONFIG_FILE, TrainingError, TrainingJob, load_job
from qoq_lib.training.launch import start, train
from qoq_lib.training.methods import load_method
from qoq_lib.training.rollouts import read_rollouts

ROOT = project_root()
ACCELERATE = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
GENERATED = 6  # tokens


def job(**changes: object) -> TrainingJob:
    method = load_method("drpo")
    return TrainingJob(start=Path("start"), size=load_size("tiny"), method=method, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with data for two runs, and a start that sometimes answers right."""
    root = tmp_path_factory.mktemp("runs")
    assemble("phantom", root / "one" / "data", rows=240, seed=0)
    shutil.copytree(root / "one" / "data", root / "two" / "data")
    data = load_assembled(root / "one" / "data")
    model, processor = tiny_model(0)
    plan = AlignmentPlan(
        naming_steps=1, naming_batch=4, answering_steps=80, answering_batch=16, learning_rate=1e-3
    )
    out = root / "alignment"
    align(model, processor, data["align"], data["train"], plan, style="brief", seed=0, out=out)
    save_checkpoint(model, processor, root / "start")
    return root


def test_notebook_03_trains_the_same_in_two_processes(runs: Path, tmp_path: Path) -> None:
    told = {}
    for name, count in (("one", "1"), ("two", "2")):
        options = ["-p", "run_id", name, "-p", "steps", "3", "-p", "num_processes", count]
        options += ["-p", "start_from", str(runs / "start")]
        done = execute("03_drpo_train", tmp_path / f"{name}.ipynb", runs, tmp_path, *options)
        assert done.returncode == 0, done.stderr[-3000:]
        told[name] = printed(tmp_path / f"{name}.ipynb")
    one, two = (read_rollouts(runs / name / "rollouts") for name in told)
    assert one["advantage"].abs().max() > 0 and (one["domain"] == "ecg").any()
    for column in ("step", "id", "sample", "completion"):
        assert one[column].tolist() == two[column].tolist()
    for column in ("reward", "advantage", "weight"):
        assert (one[column] - two[column]).abs().max() <= 1e-6
    first, second = (trained(runs / name) for name in told)
    start = load_file(runs / "start" / "model.safetensors")
    moved = max(float((first[name] - start[name]).abs().max()) for name in first)
    apart = max(float((first[name] - second[name]).abs().max()) for name in first)
    assert moved > 1e-4 and apart <= 1e-2 * moved
    for text in told.values():  # the progress of the processes arrives in the notebook, once
        assert text.count("train (steps): 3/3") == 1


def trained(run: Path) -> dict:
    return load_file(run / "checkpoints" / "trained" / "model.safetensors")


def test_a_failure_in_a_process_is_told_in_one_sentence(runs: Path, tmp_path: Path) -> None:
    rows = load_assembled(runs / "one" / "data")["train"]
    without_data = tmp_path / "run"  # the processes read them from the run folder
    with pytest.raises(TrainingError, match="one of its 2 processes .FileNotFoundError: .*goes on"):
        start(job(processes=2), rows, without_data)
    assert "assembly.json" in (without_data / "logs" / "processes.txt").read_text()


def test_the_rollouts_of_a_step_must_be_shared_out_evenly(runs: Path, tmp_path: Path) -> None:
    size = load_size("tiny")
    size.training = size.training.model_copy(update={"questions_per_step": 3, "micro_batch": 5})
    unfit = TrainingJob(start=runs / "start", size=size, method=load_method("drpo"))
    with pytest.raises(TrainingError, match="choose micro_batch so that it divides 24"):
        train(unfit, load_assembled(runs / "one" / "data")["train"], tmp_path)


def test_a_job_planned_for_other_processes_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="1 process.* planned for 2"):
        train(job(processes=2), load_assembled(runs / "one" / "data")["train"], tmp_path)


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    written = job(processes=4, parallel="zero3").model_copy(
        update={"start": tmp_path / "runs" / "other" / "checkpoints" / "aligned"}
    )
    path = written.save(run)
    assert str(tmp_path) not in path.read_text()
    read = load_job(path)
    assert read.start.resolve() == written.start.resolve()
    assert read.model_dump(exclude={"start"}) == written.model_dump(exclude={"start"})
    assert written.is_kept_in(run) and not job().is_kept_in(run)


@pytest.mark.parametrize("text", [None, "start: x", "- a", "{", "start: 3\nsize: tiny"])
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(TrainingError, match="notebook 03"):
        load_job(tmp_path / CONFIG_FILE)


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_reads_its_files(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16"
    assert config.num_processes == (1 if path.stem == "single_gpu" else 8 * config.num_machines)


def test_gpus_are_started_by_accelerate_with_the_file_that_was_asked_for() -> None:
    wanted = job(processes=4, parallel="fsdp2")
    wanted.size.needs_gpu = True
    started = command(wanted, Path("run") / CONFIG_FILE)
    assert started[1:3] == ["-m", "accelerate.commands.launch"]
    assert Path(started[started.index("--config_file") + 1]) in ACCELERATE
    assert started[started.index("--num_processes") + 1] == "4"


def test_every_process_runs_every_encoder(tmp_path: Path) -> None:
    for touches in (True, False):
        done = torchrun(tmp_path / f"{touches}.json", touches)
        assert (done.returncode == 0) == touches, done.stderr[-3000:]  # without: waits, or worse
    seen = json.loads((tmp_path / "True.json").read_text())
    assert seen == {"without gradient": [], "tokens": GENERATED}


def torchrun(out: Path, touches: bool) -> subprocess.CompletedProcess[str]:
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [sys.executable, *many, __file__, str(out), str(int(touches))],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def read_in_turn(out: Path, touches: bool) -> None:
    """Prefill, decoding, forward and backward of a sharded model on unlike batches."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import GenerationConfig

    from qoq_lib.data.phantom import make_phantom
    from qoq_lib.training.generation.decoding import Decoder
    from qoq_lib.training.generation.sampling import rollout_keys
    from qoq_lib.training.questions import question_dataset
    from qoq_lib.training.sharing import collate, read_prompts

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    model, processor = tiny_model(0)
    rows = make_phantom(200, seed=1).filter(
        lambda domain: (domain == "ecg") == (rank == 1), input_columns="domain"
    )
    questions = question_dataset(rows.select(range(2)), processor.image_processor, "brief")
    prompts = read_prompts(processor, [row["prompt"] for row in questions], [0, 1])
    cpu = torch.device("cpu")
    batch = collate(prompts, cpu, 0)
    model.model.touch_all_encoders = touches
    inner = model.model
    parts = [*inner.language_model.layers, *inner.visual.blocks, *inner.ecg_encoder.blocks]
    mesh = init_device_mesh("cpu", (2,))
    for part in (*parts, inner.visual, inner.ecg_encoder, inner.ecg_projector, model):
        fully_shard(part, mesh=mesh)
    # All answers of the second process end at once, those of the first never do.
    config = GenerationConfig(max_new_tokens=GENERATED, do_sample=True, pad_token_id=0)
    config.eos_token_id = list(range(model.config.text_config.vocab_size)) if rank else None
    rollouts = [prompt for prompt in prompts for _ in range(2)]
    decoder = Decoder(cpu, 0, sharded=True)
    tokens = decoder.generate(model, rollouts, config, rollout_keys(0, 0, 4 * rank, 4, cpu))
    model(**batch).logits.logsumexp(-1).mean().backward()
    if rank == 0:
        names = [name for name, weight in model.named_parameters() if weight.grad is None]
        out.write_text(json.dumps({"without gradient": names, "tokens": tokens.shape[1]}))


if __name__ == "__main__":
    read_in_turn(Path(sys.argv[1]), sys.argv[2] == "1")
