"""The step benchmark: its parts, its count of operations, its results and its page."""

import io
import json
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import step_time
import torch
from step.clock import PARTS, Stopwatch
from step.report import NONE_YET, PAGE, summarise, table
from step.trainers import PromptError, Settings, make_trainers
from step.work import Limits, Work, pairs_seen
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from qoq_lib.model import from_base
from qoq_lib.model.loading import tiny_model
from qoq_lib.runs import write_json_atomic
from qoq_lib.training.rollouts import read_rollouts
from qoq_lib.training.sharing import Layout

SMALL = Settings("tiny", 2, 2, prompt_tokens=96, new_tokens=4, micro_batch=4, steps=1)
OPTIONS = "--questions 2 --rollouts 2 --new-tokens 4 --micro-batch 4 --steps 1".split()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The command at its smallest: what it wrote as JSON, and what it printed."""
    path = tmp_path_factory.mktemp("bench") / "result.json"
    before = PAGE.read_bytes()
    with redirect_stdout(io.StringIO()) as printed:
        step_time.main([*OPTIONS, "--pairs", "2", "--json", str(path)])
    assert PAGE.read_bytes() == before  # of a GPU alone
    return json.loads(path.read_text()), printed.getvalue()


def test_the_command_measures_both_trainers_in_turn(run: tuple[dict[str, Any], str]) -> None:
    result, printed = run
    order = ["GRPOTrainer", "DRPOTrainer", "DRPOTrainer", "GRPOTrainer"]
    assert [block["trainer"] for block in result["blocks"]] == order
    assert result["device"] == "CPU" and result["limits"]["source"] == "measured"
    assert result["command"].startswith("python benchmarks/step_time.py --questions 2")
    assert result["settings"]["new_tokens"] == 4 and result["failures"] == {}
    assert result["summary"] == json.loads(json.dumps(summarise(result)))
    assert printed.strip() == table(result).strip()
    assert f"both in it: {result['peak_rss_gib']:.2f} GiB" in printed


def test_every_part_of_a_step_was_timed(run: tuple[dict[str, Any], str]) -> None:
    result, _ = run
    for name, absent in (
        ("GRPOTrainer", {"weight sync", "log-probabilities", "DRPO", "traces"}),
        ("DRPOTrainer", {"weight sync", "log-probabilities"}),  # tiny has no reference policy
    ):
        figures = result["summary"][name]
        assert {part for part, seconds in figures["seconds"].items() if not seconds} == absent
        assert figures["samples_per_s"] == pytest.approx(4 / figures["step"])
        assert 0 < figures["mfu"] == figures["hfu"] < 1  # nothing is computed again at tiny size
    for block in result["blocks"]:
        for step in block["steps"]:
            assert set(step["seconds"]) <= set(PARTS)


def test_shared_prompts_are_less_work_and_not_only_less_time(
    run: tuple[dict[str, Any], str],
) -> None:
    stock, ours = (run[0]["summary"][name]["operations"] for name in ("GRPOTrainer", "DRPOTrainer"))
    assert ours["prefill"] == pytest.approx(stock["prefill"] / 2, rel=0.03)  # two rollouts each
    assert ours["forward"] < stock["forward"] and ours["backward"] < stock["backward"]


def test_parts_are_own_time_and_sum_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    watch = Stopwatch(CPU)
    for seconds, part in ((1, "decoding"), (2, "prefill")):
        now[0] += seconds
        watch.enter(part)
    now[0] += 4
    watch.leave()
    now[0] += 8
    watch.leave()
    now[0] += 16
    watch.close_step()
    assert watch.steps[0]["seconds"] == {"other": 17, "decoding": 10, "prefill": 4}
    watch.close_step()
    assert sum(watch.steps[1]["seconds"].values()) == 0


def test_operations_are_those_that_torch_counts() -> None:
    model, processor = tiny_model(0)
    tower = model.model.visual
    tower.fullatt_block_indexes = tower.config.fullatt_block_indexes = [1]  # the first in windows
    ids = torch.randint(50, 300, (2, 40))
    image = [model.config.vision_start_token_id, *[model.config.image_token_id] * 30]
    ids[:, :31] = torch.tensor(image)
    grids = torch.tensor([[1, 20, 6]] * 2)  # windows of 8 patches, the last ones shorter
    inputs = {"input_ids": ids, "image_grid_thw": grids, "mm_token_type_ids": (ids == image[1])}
    inputs["mm_token_type_ids"] = inputs["mm_token_type_ids"].long()
    inputs["pixel_values"] = torch.randn(240, 1176)
    work = Work(model, checkpointing=False)
    dense = 2 * 40 * 40  # torch counts masked pairs too
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        loss = model(**inputs).logits.sum()
    counted = work.backbone(80, dense, grids) + work.head(80)
    assert counted == pytest.approx(forward.get_total_flops(), rel=1e-4)  # torch adds the angles
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    counted = work.backbone_backward(80, dense, grids) + work.head_backward(80)
    assert counted == pytest.approx(backward.get_total_flops(), rel=1e-4)


def test_adapters_make_a_backward_of_one_forward_and_no_frozen_tower() -> None:
    model, _ = tiny_model(0)
    grids = torch.tensor([[1, 8, 8]])
    full = Work(model, checkpointing=True)
    model.requires_grad_(False)
    frozen = Work(model, checkpointing=True)
    assert frozen.backbone_backward(64, 0, grids) == frozen.backbone(64, 0, None)
    assert full.backbone_backward(64, 0, None) == 2 * full.backbone(64, 0, None)
    assert full.backbone_backward(64, 0, grids) > full.backbone_backward(64, 0, None)
    assert frozen.recomputed(64, 10) == frozen.backbone(64, 10, None)


def test_only_pairs_that_may_look_at_each_other_count() -> None:
    assert pairs_seen(torch.ones(2, 5), 2, 5) == 2 * 15
    layout = Layout.of([0, 0], 1)
    mask = layout.mask(torch.ones(1, 3).long(), torch.ones(2, 2).long())
    assert pairs_seen(mask, 1, 7) == 6 + 2 * (4 + 5)  # each rollout sees the prompt and itself


def test_decoding_takes_as_long_as_reading_the_weights_once_a_token() -> None:
    work = Work(tiny_model(0)[0], checkpointing=False)
    slow = work.decoding_bound(Limits(1e6, 1e30, "test"), 1, 1, prompt=0, new=10)
    assert slow["weights"] == pytest.approx(10 * work.weight_bytes / 1e6)
    assert slow["seconds"] == slow["weights"] + slow["cache"]
    busy = work.decoding_bound(Limits(1e30, 1e6, "test"), 4, 8, prompt=0, new=10)
    assert busy["seconds"] == busy["operations"] > slow["operations"]


def test_a_prompt_too_short_for_its_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"take \d+ tokens: ask for a longer prompt"):
        make_trainers(Settings("tiny", 2, 2, 16, 4, 4, 1), CPU, tmp_path)


def test_a_large_size_trains_adapters_over_shared_weights_on_whole_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = from_base._architecture(128, 1, 1, 1, 64, 151_936, tied=True)
    small["vision_config"] |= {"depth": 2, "hidden_size": 64, "intermediate_size": 64}
    small["vision_config"] |= {"num_heads": 2, "fullatt_block_indexes": [1]}
    monkeypatch.setitem(from_base.ARCHITECTURES, "Qwen/Qwen2.5-VL-3B-Instruct", small)
    settings = Settings("3b", 1, 2, prompt_tokens=320, new_tokens=3, micro_batch=2, steps=1)
    trainers = make_trainers(settings, CPU, tmp_path)
    stock, ours = (trainers[name].trainer for name in ("GRPOTrainer", "DRPOTrainer"))
    held = [trainer.model.get_input_embeddings().weight for trainer in (stock, ours)]
    assert held[0] is held[1]
    ours.train()
    assert {len(prompt.input_ids) for prompt in ours._prompts} == {320}
    step = trainers["DRPOTrainer"].watch.steps[0]
    assert step["flops"]["recomputation"] > 0 and step["seconds"]["log-probabilities"] > 0
    rollouts = read_rollouts(tmp_path / "rollouts")
    assert rollouts["n_tokens"].tolist() == [3, 3]
    assert rollouts["completion"].str.len().min() > 6  # every token that is sampled says something


def test_a_trainer_without_enough_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError

    def step_of(watch: Stopwatch) -> None:
        with watch.within("forward"):
            watch.flops["forward"] += 1
        watch.close_step()

    def stub(train: Any = None) -> Any:
        watch = Stopwatch(CPU)
        model = tiny_model(0)[0]
        trainer = SimpleNamespace(model=model, args=SimpleNamespace(max_steps=0))
        trainer.train = train or partial(step_of, watch)
        return SimpleNamespace(watch=watch, trainer=trainer, work=Work(model, False))

    made = {"GRPOTrainer": stub(fail), "DRPOTrainer": stub()}
    monkeypatch.setattr(step_time, "make_trainers", lambda *_: made)
    monkeypatch.setattr(step_time, "device_limits", lambda *_: Limits(1e9, 1e12, "test"))
    saved: list[int] = []
    result = step_time.measure(SMALL, 5, 0.0, lambda result: saved.append(len(result["blocks"])))
    assert saved == [0, 1]  # after each of a pair; no time for a second one
    assert list(result["failures"]) == ["GRPOTrainer"]
    assert "ratio" not in result["summary"] and "out of GPU memory" in table(result)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_large_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        step_time.main(["--size", "7b"])
    assert "needs an NVIDIA GPU and none is visible" in capsys.readouterr().err


def test_the_page_keeps_every_result(
    run: tuple[dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, (result, printed) = tmp_path / "page.md", run
    page.write_text(f"# Title\n\n{NONE_YET}")
    monkeypatch.setattr(step_time, "PAGE", page)
    for device in ("GPU A", "GPU B"):
        path = write_json_atomic(tmp_path / "result.json", result | {"device": device})
        step_time.main(["--record", str(path)])
    text = page.read_text()
    assert NONE_YET not in text and text.count(printed.splitlines()[0]) == 2
    day = f"{pd.Timestamp(result['date']):%Y-%m-%d}"
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == [f"## tiny on GPU {name}, {day}" for name in "AB"]
    assert f"Commit {result['commit']}, `{result['command']}`" in text
