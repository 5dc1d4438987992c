"""Bases, checkpoints and adapters: what is loaded, and what is said when it cannot be."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import hub_base
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from qoq_lib.hub_errors import OfflineError
from qoq_lib.model import from_base as from_base_module
from qoq_lib.model.configuration_qoq import EcgConfig
from qoq_lib.model.from_base import ARCHITECTURES, FRESH, base_processor
from qoq_lib.model.loading import LoadError, load_model, load_size, tiny_model
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
from qoq_lib.training.checkpoints import save_checkpoint

SMALL_ECG = EcgConfig(hidden_size=32, depth=1, num_heads=2)
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_base(tmp_path_factory.mktemp("hub") / "base")


@pytest.fixture(scope="module")
def small(base: Path) -> QoQForConditionalGeneration:
    return QoQForConditionalGeneration.from_base(
        str(base), dtype=torch.float32, ecg_config=SMALL_ECG
    )


def prompts(processor: Any, *, with_ecg: bool) -> Any:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (84, 112, 3), dtype=np.uint8))
    parts: list[dict[str, Any]] = [{"type": "image", "image": picture}]
    if with_ecg:
        parts.append({"type": "ecg", "ecg": rng.normal(size=(12, 5000))})
    parts.append({"type": "text", "text": "Which diagnosis?"})
    return processor.apply_chat_template(
        [[{"role": "user", "content": parts}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def test_a_base_keeps_its_answers(base: Path, small: QoQForConditionalGeneration) -> None:
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    inputs = prompts(base_processor(str(base)), with_ecg=False)
    old = slice(small.config.ecg_token_id)  # the tokens that the base knows
    with torch.no_grad():
        expected = stock(**inputs).logits
        assert expected.std() > 0.1  # weights that say something
        assert torch.equal(small(**inputs).logits[..., old], expected[..., old])
    assert small.generation_config.repetition_penalty == 1.05


def test_the_marks_of_an_ecg_get_the_mean_embedding(
    base: Path, small: QoQForConditionalGeneration
) -> None:
    tokenizer = base_processor(str(base)).tokenizer
    marks = tokenizer.convert_tokens_to_ids(["<|ecg_pad|>", "<|ecg_start|>", "<|ecg_end|>"])
    assert marks[0] == small.config.ecg_token_id == min(marks)
    assert set(marks) <= set(small.generation_config.suppress_tokens)
    for module in (small.get_input_embeddings(), small.get_output_embeddings()):
        mean = module.weight[: min(marks)].mean(dim=0)
        for mark in marks:
            assert torch.allclose(module.weight[mark], mean, atol=1e-6)


def test_a_vocabulary_without_spare_rows_grows(tmp_path: Path) -> None:
    known = len(base_processor(str(hub_base(tmp_path / "a"))).tokenizer) - 3
    tight = hub_base(tmp_path / "b", vocab_size=known, tie_word_embeddings=True)
    model = QoQForConditionalGeneration.from_base(str(tight), ecg_config=SMALL_ECG)
    assert model.get_input_embeddings().weight.shape[0] == known + 3
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight[known:].std(dim=0).max() == 0
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_a_base_with_its_ecg_path_is_saved_and_loaded_again(
    base: Path, small: QoQForConditionalGeneration, tmp_path: Path
) -> None:
    processor = base_processor(str(base))
    save_checkpoint(small, processor, tmp_path / "start")
    inputs = prompts(processor, with_ecg=True)
    assert (inputs["input_ids"] == small.config.ecg_token_id).sum() == 8
    loaded, _ = load_model(tmp_path / "start")
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, small(**inputs).logits)


def test_the_seed_decides_the_ecg_path_and_nothing_else_changes(base: Path) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    models = [
        QoQForConditionalGeneration.from_base(str(base), ecg_config=SMALL_ECG, seed=seed)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    first, again, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed and all(name.startswith(FRESH) for name in changed)


def test_the_tiny_model_leaves_the_random_state_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    expected, numbers = torch.rand(3), np.random.rand(3)
    torch.manual_seed(1)
    np.random.seed(1)
    tiny_model(7)
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(np.random.rand(3), numbers)


# The published files' total sizes (Hub, model.safetensors.index.json), 2 bytes a weight.
PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 7_509_245_952 // 2,
    "Qwen/Qwen2.5-VL-7B-Instruct": 16_584_333_312 // 2,
    "Qwen/Qwen2.5-VL-32B-Instruct": 66_905_436_672 // 2,
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_random_weights_have_the_published_shapes(name: str) -> None:
    assert name in ARCHITECTURES
    config = from_base_module._published_config(name)
    with torch.device("meta"):
        model = QoQForConditionalGeneration(config)
    counted = {
        name: weight.numel()
        for name, weight in model.named_parameters()
        if not name.startswith(FRESH)
    }
    assert sum(counted.values()) == PUBLISHED[name]


def test_every_base_of_the_dial_can_be_built_without_a_download() -> None:
    assert {load_size(name).base for name in ("3b", "7b", "32b")} == set(ARCHITECTURES)


def test_random_weights_need_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk = from_base_module._architecture(64, 2, 4, 2, 96, 151_680)
    shrunk["text_config"]["rope_parameters"]["mrope_section"] = [2, 3, 3]
    shrunk["vision_config"] |= {"depth": 1, "hidden_size": 64, "num_heads": 4}
    monkeypatch.setitem(ARCHITECTURES, "shrunk", shrunk)
    build: dict[str, Any] = {"random_weights": True, "ecg_config": SMALL_ECG}
    model = QoQForConditionalGeneration.from_base("shrunk", **build)
    again = QoQForConditionalGeneration.from_base("shrunk", **build)
    weights = model.state_dict()
    assert all(torch.equal(weight, again.state_dict()[key]) for key, weight in weights.items())
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    ids = torch.tensor([[5] + [151_665] * 8 + [6]])
    ecg = {"ecg_values": torch.randn(1, 8, 2500), "ecg_counts": torch.tensor([1])}
    output = model.generate(ids, **ecg, max_new_tokens=2, min_new_tokens=2)
    assert output.shape == (1, 12)
    with pytest.raises(LoadError, match="'Qwen/Qwen9' is not known here: use one of Qwen/"):
        QoQForConditionalGeneration.from_base("Qwen/Qwen9", random_weights=True)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def drop_weight(folder: Path, name: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"][name]
    (folder / INDEX).write_text(json.dumps(index))


def rename_weight(folder: Path, name: str) -> None:
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace(f'"{name}"', '"model.layers.9.other"'))


DAMAGE: list[tuple[Callable[[Path], Any], str]] = [
    (lambda f: truncate(f / "model-00002-of-00003.safetensors"), "00002-of-.* is truncated"),
    (lambda f: (f / "model-00003-of-00003.safetensors").unlink(), "00003-of-.* is missing"),
    (lambda f: (f / "model-00001-of-00003.safetensors").write_bytes(b"no"), "00001-of-.* corrupt"),
    (lambda f: (f / "config.json").write_text("{"), "config.json is not valid JSON"),
    (lambda f: (f / INDEX).write_text('{"weight_map": {}}'), "lists no weights"),
    (lambda f: (f / INDEX).unlink(), "model.safetensors is missing"),
    (lambda f: drop_weight(f, "model.norm.weight"), r"lacks .*language_model\.norm\.weight \(1 w"),
    (lambda f: rename_weight(f, "model.norm.weight"), "lacks model.layers.9.other"),
    (lambda f: (f / "tokenizer.json").write_text("{"), "no readable tokenizer"),
    (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "of type 'bert'"),
]


@pytest.mark.parametrize("damage, sentence", DAMAGE)
def test_a_damaged_base_is_refused(
    tmp_path: Path, damage: Callable[[Path], Any], sentence: str
) -> None:
    folder = hub_base(tmp_path / "base")
    damage(folder)
    with pytest.raises(LoadError, match=sentence) as refused:
        QoQForConditionalGeneration.from_base(str(folder), ecg_config=SMALL_ECG)
    assert "\n" not in str(refused.value)


WEIGHTS = "model.safetensors"


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda f: truncate(f / WEIGHTS), "model.safetensors is truncated"),
        (lambda f: (f / WEIGHTS).unlink(), "model.safetensors is missing"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "of type 'bert'"),
        (lambda f: (f / "tokenizer.json").unlink(), "no readable QoQ processor"),
        (lambda f: (f / "processor_config.json").write_text("{"), "no readable QoQ processor"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    tiny: Any, tmp_path: Path, damage: Callable[[Path], Any], sentence: str
) -> None:
    folder = tmp_path / "model"
    save_checkpoint(*tiny, folder)
    damage(folder)
    with pytest.raises(LoadError, match=sentence) as refused:
        load_model(folder)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_without_its_ecg_path_is_not_filled_up(tiny: Any, tmp_path: Path) -> None:
    model, processor = tiny
    save_checkpoint(model, processor, tmp_path / "model")
    kept = {name: w for name, w in model.state_dict().items() if "ecg_projector" not in name}
    model.save_pretrained(tmp_path / "model", state_dict=kept)
    with pytest.raises(LoadError, match=r"lacks or misshapes model\.ecg_projector\.fc1\.bias \(6 "):
        load_model(tmp_path / "model")


def test_a_name_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=f"no folder {tmp_path}/a/b/c, and no name on the"):
        load_model(tmp_path / "a" / "b" / "c")
    with pytest.raises(OfflineError, match=r"nobody/nothing \(model, no folder here\)"):
        load_model("nobody/nothing")


MEASURE = """
import re, sys, torch
from qoq_lib.model.modeling_qoq import QoQForConditionalGeneration
import qoq_lib.model.from_base

def kib(field):
    return int(re.search(field + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

before = kib("VmRSS")
model = QoQForConditionalGeneration.from_base(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
touched = sum(float(weight.detach().max()) for weight in model.parameters())
weights = sum(weight.nbytes for weight in model.parameters())
print(weights, (kib("VmHWM") - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory counters")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_loading_takes_hardly_more_memory_than_the_weights(tmp_path: Path, dtype: str) -> None:
    folder = hub_base(
        tmp_path / "base",
        shards=5,
        fill=0.01,
        vocab_size=152_064,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=18,
        num_attention_heads=8,
        rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
        vision_config={"depth": 2, "hidden_size": 64, "num_heads": 4, "out_hidden_size": 1024},
    )
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) >= 10**9
    command = [sys.executable, "-c", MEASURE, str(folder), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    weights, peak = map(int, done.stdout.split())
    assert weights >= 10**9
    assert weights <= peak <= 1.2 * weights
