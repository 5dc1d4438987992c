"""The plan of a training: its counts are the model's, its memory moves with what it depends on."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model

from qoq_lib.model import loading
from qoq_lib.model.loading import ModelSize, load_size
from qoq_lib.model.overrides import override
from qoq_lib.model.tuning import TuningError, parameters_by_part, prepare
from qoq_lib.training import stages
from qoq_lib.training.job import TrainingError
from qoq_lib.training.methods import load_method
from qoq_lib.training.planning import fitting
from qoq_lib.training.planning.fitting import check_fits, choose_tuning, plan_here
from qoq_lib.training.planning.plan import GIB, Plan, make_plan

METHOD = load_method("drpo")


def planned(name: str, text: str = "", **how: Any) -> Plan:
    return make_plan(override(load_size(name), text), METHOD, **how)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("parts", [["language_model", "merger", "ecg_projector"], ["vision_tower"]])
def test_counts_are_those_of_the_model_that_is_trained(tiny: Any, tuning: Any, parts: Any) -> None:
    model = copy.deepcopy(tiny[0])
    total = sum(weight.numel() for weight in model.parameters())
    adapters = prepare(model, tuning, parts)
    model = get_peft_model(model, adapters) if adapters else model
    counts = planned("tiny", f"tuning={tuning}, trainable=[{','.join(parts)}]").counts
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert counts.total == total
    assert counts.trained == sum(weight.numel() for weight in trained)
    assert counts.trained_bytes == sum(weight.nbytes for weight in trained)
    everything = sum(weight.nbytes for weight in model.parameters())
    assert counts.frozen_bytes + counts.trained_bytes == everything


def test_adapters_of_seven_billion_are_counted_without_loading_them() -> None:
    plan = planned("7b", "trainable=[language_model]")
    width, mlp, key = 3584, 18_944, 512  # the published config.json
    sides = 2 * (width + width) + 2 * (width + key) + 3 * (width + mlp)
    assert plan.counts.trained == 16 * 28 * sides
    assert plan.counts.weights == plan.counts.total + plan.counts.trained
    assert 8.2e9 < plan.counts.total < 8.5e9


def test_four_bits_shrink_the_frozen_layers_alone() -> None:
    lora, qlora = planned("7b").counts, planned("7b", "tuning=qlora").counts
    assert lora.trained == qlora.trained and lora.total == qlora.total
    layers = 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18_944)
    saved = layers * (2 - 4.127 / 8)
    assert lora.frozen_bytes - qlora.frozen_bytes == pytest.approx(saved, rel=1e-6)


def test_full_tuning_trains_float32_weights() -> None:
    for part, weight in _tuned("full", ["language_model"]):
        trained = part == "language_model"
        assert weight.dtype == (torch.float32 if trained else torch.bfloat16)
        assert weight.requires_grad == trained
    assert {weight.dtype for _, weight in _tuned("lora", ["language_model"])} == {torch.bfloat16}


def _tuned(tuning: Any, parts: Any) -> list[Any]:
    model = loading.tiny_model(0)[0].to(torch.bfloat16)
    prepare(model, tuning, parts)
    return list(parameters_by_part(model))


@given(st.data())
@settings(max_examples=15)
def test_memory_grows_with_what_it_is_made_of(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["tiny", "3b", "7b"]))
    knobs = {
        "training.micro_batch": [5, 10, 20, 40, 80],
        "training.questions_per_step": [16, 32, 48],
        "pixels.largest": [300_000, 524_288, 1_000_000],
        "max_completion_length": [128, 256, 1024, 2048],
    }
    base = "training.rollouts=5, training.questions_per_step=16, training.micro_batch=5"
    chosen = data.draw(st.sampled_from(sorted(knobs)))
    values = sorted(data.draw(st.sets(st.sampled_from(knobs[chosen]), min_size=2, max_size=2)))
    plans = []
    for value in values:
        size = override(
            override(load_size(name), base), "pixels.smallest=65536, pixels.largest=524288"
        )
        plans.append(make_plan(override(size, f"{chosen}={value}"), METHOD))
    small, large = (plan.table.loc["sum"] for plan in plans)
    assert (small <= large).all() and (small < large).any()


@settings(max_examples=15)
@given(
    st.sampled_from(["7b", "32b"]), st.sampled_from(["fsdp2", "zero3"]), st.sampled_from([2, 4, 8])
)
def test_sharing_out_shrinks_what_each_gpu_holds(name: str, parallel: Any, processes: int) -> None:
    some = planned(name, processes=processes, parallel=parallel)
    more = planned(name, processes=2 * processes, parallel=parallel)
    alone = planned(name)
    for plan, fewer in ((some, alone), (more, some)):
        held = [part for part in fewer.needs if part.endswith(("weights", "optimiser"))]
        for part in set(held) - {"gathered weights", "trained weights"}:
            assert plan.needs[part]["scoring"] < fewer.needs[part]["scoring"]
    assert more.peak < some.peak
    copies = planned(name, processes=processes)  # ddp holds everything on each
    assert copies.needs["frozen weights"] == alone.needs["frozen weights"]


def test_other_engines_take_the_rollouts_off_the_trainer() -> None:
    here, there = planned("7b"), planned("7b", rollout="vllm_server")
    assert "KV cache" in here.needs and "KV cache" not in there.needs
    assert there.peak < here.peak
    check_fits(there, int(there.peak / 0.89))
    with pytest.raises(TrainingError):  # a vLLM on the same GPU leaves less of it
        check_fits(planned("7b", rollout="vllm"), int(there.peak / 0.89))


def test_the_plan_says_what_a_person_wants_to_know() -> None:
    plan = planned("7b")
    said = str(plan)
    assert "16 questions x 5 rollouts a step; step time: not measured" in said
    assert f"{plan.peak / GIB:.1f} GiB" in said and "of 8,392.8 million" in said
    parts = plan.table.drop(index="sum")
    assert plan.table.loc["sum"].max() == pytest.approx(parts.sum().max())
    assert {"KV cache", "activations", "logits", "gradients and optimiser"} <= set(parts.index)
    assert "reference policy" in planned("7b", "tuning=full").needs
    assert "reference policy" not in planned("7b", "tuning=full, training.beta=0").needs


def test_fsdp_alone_shares_the_reference_policy_out() -> None:
    def of_one_gpu(**how: Any) -> float:
        return planned("7b", "tuning=full", **how).needs["reference policy"]["scoring"]

    whole = of_one_gpu()
    assert of_one_gpu(processes=8, parallel="fsdp2") == pytest.approx(whole / 8)
    assert of_one_gpu(processes=8, parallel="zero3") == of_one_gpu(processes=8) == whole


@pytest.mark.parametrize("name, gib", [("3b", 16), ("7b", 24), ("7b", 40), ("32b", 80)])
def test_what_does_not_fit_is_refused_with_a_setting_that_does(name: str, gib: int) -> None:
    with pytest.raises(TrainingError) as refused:
        check_fits(planned(name), gib * GIB)
    sentence = str(refused.value)
    assert "\n" not in sentence and f"Training {name} (lora) takes about" in sentence
    advised = sentence.split("overrides to '")[1].split("'")[0]
    tuning = "qlora" if "set tuning to 'qlora'" in sentence else "lora"
    check_fits(planned(name, f"tuning={tuning}, {advised}"), gib * GIB)
    if "such GPUs" in sentence:
        count = int(sentence.split("num_processes=")[1].split()[0])
        check_fits(planned(name, processes=count, parallel="fsdp2"), gib * GIB)


def test_an_alignment_is_refused_with_its_own_settings() -> None:
    plan = make_plan(load_size("7b"))
    assert "rollouts" not in str(plan)
    with pytest.raises(TrainingError, match="Aligning 7b .*alignment.answering_batch=1"):
        check_fits(plan, 26 * GIB)


@pytest.mark.parametrize("gib, tuning", [(300, "full"), (64, "lora"), (40, "qlora"), (1, "qlora")])
def test_the_first_tuning_that_fits_is_chosen(gib: int, tuning: str) -> None:
    assert choose_tuning(planned("7b"), gib * GIB) == tuning


class Gpu:
    """A GPU of so many GiB, as PyTorch would tell of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gib: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gib * GIB, gib * GIB))
        monkeypatch.setattr(loading, "fetch", lambda *_, **__: None)  # config.json of the Hub


def test_on_a_gpu_the_tuning_is_settled_or_the_training_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Gpu(monkeypatch, 80)
    size = load_size("7b")
    assert plan_here(size, METHOD).size.tuning == size.tuning == "lora"
    with pytest.raises(TrainingError, match="Training 7b .full. takes about"):
        plan_here(size, METHOD, "full")
    Gpu(monkeypatch, 300)
    assert plan_here(size, METHOD, "auto").size.tuning == "full"
    monkeypatch.setattr("qoq_lib.model.tuning.find_spec", lambda _: None)
    Gpu(monkeypatch, 40)
    with pytest.raises(TuningError, match="'qlora' needs an NVIDIA GPU and bitsandbytes"):
        plan_here(load_size("7b"), METHOD, "auto")


def test_an_alignment_is_tuned_as_its_one_gpu_allows_whatever_several_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpu(monkeypatch, 80)
    size, made = load_size("7b"), []
    plan = plan_here(size, METHOD, "auto", processes=8, parallel="fsdp2")
    assert plan.size.tuning == size.tuning == "full"
    monkeypatch.setattr(stages, "align_base", lambda data, size, *_: made.append(size.tuning))
    stages.ensure_aligned(DatasetDict(), size, tmp_path, seed=0)
    assert made == ["lora"] and size.tuning == "full"


def test_a_size_that_needs_no_gpu_keeps_its_tuning() -> None:
    size: ModelSize = load_size("tiny")
    plan = plan_here(size, METHOD)
    assert size.tuning == "full" and plan.counts.trained == plan.counts.total
    assert plan_here(size, METHOD, "lora").counts.trained < plan.counts.trained
    assert fitting.plan_here(load_size("tiny")).peak > 0
