"""Rollouts by vLLM: TRL's own code against stand-ins that sample; ECGs stay with transformers."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from trl.generation import vllm_client, vllm_generation
from vllm_stand_ins import LocalLLM, LoopbackClient, PlainModel, Server

from qoq_lib.data.phantom import make_phantom
from qoq_lib.model.loading import load_size
from qoq_lib.model.plain import write_plain
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.generation import engines
from qoq_lib.training.generation.engines import Split, check_engine
from qoq_lib.training.job import TrainingError, TrainingJob, load_job
from qoq_lib.training.launch import train
from qoq_lib.training.methods import load_method
from qoq_lib.training.rewards import COMPONENTS
from qoq_lib.training.rollouts import read_rollouts
from qoq_lib.training.sharing import Prompt

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = "http://127.0.0.1:9"


def questions() -> Dataset:
    """Eight training questions, two of them on ECGs."""
    drawn = make_phantom(200, seed=1).filter(lambda s: s == "train", input_columns="split")
    ecgs = drawn.filter(lambda d: d == "ecg", input_columns="domain").select(range(2))
    images = drawn.filter(lambda d: d != "ecg", input_columns="domain").select(range(6))
    return concatenate_datasets([ecgs, images])


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return questions()


@pytest.fixture(scope="module")
def start(loud: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    save_checkpoint(*loud, folder)
    return folder


def some_reward(text: str, answer: Any, row: Any) -> float:
    return len(text) % 7 / 7


@pytest.fixture(autouse=True)
def something_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained policy earns nothing, and its weights would stay as they are."""
    monkeypatch.setitem(COMPONENTS, "accuracy", some_reward)


@pytest.fixture
def vllm_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL finds a vLLM; what it sets in the environment goes with the test."""
    for module in (vllm_client, vllm_generation):
        monkeypatch.setattr(module, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "VLLMClient", LoopbackClient)
    monkeypatch.setattr(vllm_generation, "LLM", LocalLLM, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)


def job(start: Path, **changes: Any) -> TrainingJob:
    size = load_size("tiny")
    plan = {"steps": 3, "questions_per_step": 4, "rollouts": 2, "micro_batch": 8}
    size.training = size.training.model_copy(update=plan)
    return TrainingJob(start=start, size=size, method=load_method("drpo"), **changes)


def check_training(
    log: pd.DataFrame, run: Path, asked: list[tuple[list[int], int, int]], ecg_token: int
) -> None:
    """Of each step the ECG questions were sampled here, the others by what ``asked`` belongs to."""
    made = read_rollouts(run / "rollouts")
    assert len(made) == 3 * 4 * 2
    by_step = made["domain"].eq("ecg").groupby(made["step"]).mean()
    assert 0 < by_step.mean() < 1
    assert log["rollout/transformers_share"].tolist() == by_step.tolist()
    assert not any(ecg_token in ids for ids, _, _ in asked)
    assert sum(n for _, _, n in asked) == (made["domain"] != "ecg").sum()
    assert all(images for _, images, _ in asked)
    # The policy gives what was sampled the probability that vLLM says it had, up to the ban of a
    # few tokens: so weights were sent at each step, and each row had its own images.
    difference = log["sampling/sampling_logp_difference/max"]
    assert (difference > 0).all() and (difference < 0.02).all()


def test_a_server_samples_what_has_no_ecg(
    start: Path, rows: Dataset, tmp_path: Path, vllm_here: None
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with Server(write_plain(start, tmp_path / "plain")) as server:
        before = {n: p.clone() for n, p in server.plain.model.named_parameters()}
        _, processor, log = train(
            job(start, rollout="vllm_server", rollout_server=server.url), rows, run
        )
        plain = server.plain
    check_training(log, run, plain.asked, processor.tokenizer.convert_tokens_to_ids("<|ecg_pad|>"))
    assert plain.updates == 3
    changed = [not torch.equal(before[n], p) for n, p in plain.model.named_parameters()]
    assert sum(changed) > len(changed) / 2


def test_a_vllm_in_this_process_samples_what_has_no_ecg(
    start: Path, rows: Dataset, tmp_path: Path, vllm_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalLLM, "made", [])
    run = tmp_path / "run"
    run.mkdir()
    model, processor, log = train(job(start, rollout="vllm"), rows, run)
    (llm,) = LocalLLM.made
    ecg_token = processor.tokenizer.convert_tokens_to_ids("<|ecg_pad|>")
    check_training(log, run, llm.plain.asked, ecg_token)
    assert llm.options["max_model_len"] < 20_000 and llm.options["gpu_memory_utilization"] == 0.3
    assert model.name_or_path == str(start)
    # The copy that vLLM loaded is gone again.
    assert {path.name for path in run.iterdir()} <= {
        *("checkpoints", "rollouts", "config.yaml", "training_log.parquet", "logs")
    }


def test_two_processes_and_a_server_make_the_rollouts_of_one(
    start: Path, rows: Dataset, tmp_path: Path, vllm_here: None
) -> None:
    made = {}
    for processes in (1, 2):
        run = tmp_path / str(processes)
        run.mkdir()
        with Server(write_plain(start, run / "plain")) as server:
            asked = job(start, rollout="vllm_server", rollout_server=server.url)
            asked = asked.model_copy(update={"processes": processes})
            asked.size.training.micro_batch = 4
            if processes == 1:
                train(asked, rows, run)
            else:
                in_two_processes(asked.save(run))
            fillers = [ids for ids, _, _ in server.plain.asked if len(ids) == 1]
        assert bool(fillers) == (processes == 2)  # one had more ECGs than the other
        made[processes] = read_rollouts(run / "rollouts").sort_values(["step", "id", "sample"])
    assert len(made[1]) == 3 * 4 * 2
    for column in ("step", "id", "sample", "completion"):
        assert made[1][column].tolist() == made[2][column].tolist()


def in_two_processes(config: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", __file__, str(config)),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,  # processes that wait for each other would wait for ever
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_stand_in_takes_no_weights_that_vllm_would_refuse(start: Path, loud: Any) -> None:
    folder = start.parent / "plain"
    plain = PlainModel(write_plain(start, folder))
    with pytest.raises(KeyError, match="ecg"):
        plain.load_weights(loud[0].named_parameters())


def prompt(kind: str) -> Prompt:
    media = {"ecg_values": torch.zeros(1)} if kind == "ecg" else {}
    return Prompt(torch.tensor([5]), torch.tensor([0]), media, ["picture"] * (kind == "image"))


def test_a_batch_is_split_by_question_and_put_together_again() -> None:
    ecg, image, text = prompt("ecg"), prompt("image"), prompt("text")
    batch = [image, image, ecg, ecg, text, text]
    split = Split.of(batch, 2)
    assert split == Split([0, 1, 4, 5], [2, 3], 1 / 3)
    ids, images = split.requests(batch, [1], None)
    assert ids == [[5]] * 4 and images == [["picture"], ["picture"], None, None]
    there = [[10], [11, 1], [14], [15]]
    done, logps = split.merged([[12, 12], [13]], there, [[-1.0], [-2.0, -3.0], [-4.0], [-5.0]])
    assert done == [[10], [11, 1], [12, 12], [13], [14], [15]]
    assert logps == [[-1.0], [-2.0, -3.0], [None, None], [None], [-4.0], [-5.0]]


def test_a_run_of_image_tokens_is_folded_where_vllm_is_to_expand_it() -> None:
    two = Prompt(torch.tensor([3, 9, 9, 4, 3, 9, 4, 5, 5]), torch.zeros(9), {}, ["one", "other"])
    split = Split([0, None], [], 0.0)
    assert split.requests([two], [1], 9)[0] == [[3, 9, 4, 3, 9, 4, 5, 5], [1]]
    assert split.requests([two], [1], None)[0] == [[3, 9, 9, 4, 3, 9, 4, 5, 5], [1]]


def test_processes_ask_for_equally_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    ecg, image = prompt("ecg"), prompt("image")

    def splits(batches: list[list[Prompt]], group: int) -> list[Split]:
        """What each of several processes decides, each told what the others tell."""
        told: list[Any] = []
        monkeypatch.setattr(engines, "gather_object", lambda mine: told.extend(mine) or mine)
        for batch in batches:
            Split.of(batch, group)
        monkeypatch.setattr(engines, "gather_object", lambda mine: told)
        return [Split.of(batch, group) for batch in batches]

    some, none = splits([[image] * 2 + [ecg] * 2, [image] * 4], 2)
    assert some == Split([0, 1, None, None], [2, 3], 0.25)
    assert none == Split([0, 1, 2, 3], [None], 0.25)
    assert none.merged([[9]], [[0], [1], [2], [3]], [[0.0]] * 4)[0] == [[0], [1], [2], [3]]
    # Half a question's rollouts on either process: with an ECG among them, nothing goes to vLLM.
    halves = splits([[image] * 2 + [ecg], [ecg, image, image]], 4)
    assert halves == [Split([], [0, 1, 2], 1.0)] * 2
    assert splits([[image], [image]], 2) == [Split([0], [], 0.0)] * 2


def test_engines_that_cannot_run_here_are_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_engine("transformers", "remax", NOWHERE)
    check_engine("vllm", None, NOWHERE)
    with pytest.raises(TrainingError, match="'remax' need greedy completions.*transformers"):
        check_engine("vllm", "remax", NOWHERE)
    monkeypatch.setattr(engines, "is_vllm_available", lambda: False)
    with pytest.raises(TrainingError, match="vLLM, which is not installed: pip install"):
        check_engine("vllm", "drpo", NOWHERE)
    monkeypatch.setattr(engines, "is_vllm_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="needs an NVIDIA GPU"):
        check_engine("vllm", "drpo", NOWHERE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_engine("vllm", "drpo", NOWHERE)
    with pytest.raises(TrainingError, match=f"No vLLM server answers at {NOWHERE}"):
        check_engine("vllm_server", "drpo", NOWHERE)


if __name__ == "__main__":  # one of two processes, started by torchrun
    for module in (vllm_client, vllm_generation):
        module.is_vllm_available = lambda: True
    vllm_generation.VLLMClient = LoopbackClient
    COMPONENTS["accuracy"] = some_reward
    config = Path(sys.argv[1])
    train(load_job(config), questions(), config.parent)
