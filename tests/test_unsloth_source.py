"""What ``with_unsloth`` leans on, read in unsloth's real source, which runs on GPUs alone.

The source is that of an installed unsloth, or lies in the folder that ``QOQ_UNSLOTH_SOURCE`` names:
``pip download --no-deps unsloth unsloth_zoo``, both wheels unpacked there.
"""

import ast
import inspect
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from trl import GRPOTrainer

from qoq_lib.training import arguments, with_unsloth
from qoq_lib.training.generation import engines
from qoq_lib.training.trainer import IMAGE_FIELDS

ROOT = Path(__file__).resolve().parents[1]
CHANGED_BUT_HARMLESS = {
    *("logging_nan_inf_filter", "torch_empty_cache_steps", "include_tokens_per_second"),
    *("include_num_input_tokens_seen", "auto_find_batch_size", "max_seq_length", "padding_free"),
    *("per_device_eval_batch_size", "eval_accumulation_steps", "fp16"),  # not used here
    *("vllm_mode", "vllm_importance_sampling_correction", "router_aux_loss_coef"),  # not used here
    "loss_type",  # every method names its own
}


def packages() -> Path:
    """The folder that holds ``unsloth`` and ``unsloth_zoo``."""
    named = os.environ.get("QOQ_UNSLOTH_SOURCE")
    if named:
        return Path(named)
    found = find_spec("unsloth")
    if found is None or found.origin is None:
        pytest.skip("unsloth is not installed and QOQ_UNSLOTH_SOURCE names no folder with it")
    return Path(found.origin).parents[1]


def parsed(path: str) -> ast.Module:
    return ast.parse((packages() / path).read_text(encoding="utf-8"))


def function(tree: ast.AST, name: str) -> ast.FunctionDef:
    """The last function of that name, which is the one that counts."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name]
    assert found, f"unsloth has no function {name} any more"
    return found[-1]


def called(tree: ast.AST) -> set[str]:
    """Names of the methods and functions that are called."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls
    }


@pytest.fixture(scope="module")
def replacements() -> ast.Module:
    return parsed("unsloth/models/rl_replacements.py")


def rewritten(replacements: ast.Module, method: str) -> ast.Module:
    """TRL's method as unsloth's own function for it rewrites it."""
    editor = function(replacements, f"grpo_trainer_{method}")
    silent: Any = lambda *_, **__: None  # noqa: E731
    scope = {
        "re": re,
        "Version": Version,
        "trl_version": Version("1.14.2"),
        "_warn_once": silent,
        "_unsloth_grpo_sample_weight_mode": silent,
        "_guard_vllm_sync_reload_for_shared_weights": lambda source: source,
    }
    exec(compile(ast.Module([editor], []), "unsloth", "exec"), scope)  # noqa: S102
    source = inspect.getsource(getattr(GRPOTrainer, method))
    return ast.parse("class Trainer:\n" + scope[editor.name](method, source))


def test_the_trainer_in_trl_is_replaced_and_ignores_peft_config() -> None:
    source = (packages() / "unsloth/models/rl.py").read_text(encoding="utf-8")
    assert 'f"trl.{RLTrainer_name} = created_module.Unsloth{RLTrainer_name}"' in source
    assert 'f"trl.{RLConfig_name} = created_module.Unsloth{RLConfig_name}"' in source
    assert 'init.replace("model = self._prepare_peft_model(model, peft_config, args)' in source
    # As handed over: FastVisionModel's model is a PeftModel, and that is what is trained.


def test_rewards_and_advantages_stay_in_the_methods_that_we_extend(
    replacements: ast.Module,
) -> None:
    step = rewritten(replacements, "_generate_and_score_completions")
    assert {"_generate", "_calculate_rewards", "_get_per_token_logps_and_entropies"} <= called(step)
    keys = {node.value for node in ast.walk(step) if isinstance(node, ast.Constant)}
    assert {"advantages", "prompt_ids", "completion_mask", "num_images"} <= keys
    text = ast.unparse(step)
    assert "_calculate_rewards(inputs, prompts_text, completions_text, completion_ids_list)" in text
    assert "_calculate_rewards(inputs, prompts, completions, completion_ids_list)" in text
    assert "self._logs['completion'].extend(gather_object(completions_text))" in text
    batches = rewritten(replacements, "_prepare_inputs")
    assert "_generate_and_score_completions" in called(batches)
    edited = {node.name for node in ast.walk(replacements) if isinstance(node, ast.FunctionDef)}
    assert "grpo_trainer__calculate_rewards" not in edited


def test_the_loss_is_unsloths_and_takes_our_advantages(replacements: ast.Module) -> None:
    loss = function(function(replacements, "grpo_trainer_compute_loss"), "compute_loss")
    assert "advantages = inputs['advantages']" in ast.unparse(loss)
    assert "_get_per_token_logps_and_entropies" in called(loss)
    assert "grpo_accumulated_loss" in called(loss)
    assert "_compute_loss" not in called(loss)  # so what DRPOTrainer does there is never reached
    scored = function(replacements, "grpo_trainer__get_per_token_logps_and_entropies")
    inner = function(scored, "_get_per_token_logps_and_entropies")
    assert "get_output_embeddings" in called(inner)  # which a stand-in for the model has not
    assert "return (logprobs.detach(), entropies, aux_loss)" in ast.unparse(inner)


def test_the_trainer_asks_a_processor_for_no_more_than_ours_is_given(
    replacements: ast.Module,
) -> None:
    editors = ("compute_loss", "_get_per_token_logps_and_entropies")
    asked = {
        node.attr
        for name in editors
        for node in ast.walk(function(replacements, f"grpo_trainer_{name}"))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self.processing_class"
    }
    assert asked == {"pad_token_id"}
    assert "processor.pad_token_id = " in inspect.getsource(with_unsloth.load_adapted)


def test_an_ecg_would_be_dropped_and_an_image_not() -> None:
    zoo = parsed("unsloth_zoo/rl_replacements.py")
    keys = next(
        ast.literal_eval(node.value)
        for node in ast.walk(zoo)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "GRPO_VISION_KEYS"
    )
    assert set(IMAGE_FIELDS) <= set(keys)
    assert not [key for key in keys if "ecg" in key or "series" in key]


def test_the_model_is_asked_for_in_words_that_unsloth_knows() -> None:
    loader = parsed("unsloth/models/loader.py")
    fast = next(
        n for n in ast.walk(loader) if isinstance(n, ast.ClassDef) and n.name == "FastModel"
    )
    base = parsed("unsloth/models/vision.py")
    known = {
        "from_pretrained": function(fast, "from_pretrained"),
        "get_peft_model": function(base, "get_peft_model"),
    }
    ours = ast.parse(inspect.getsource(with_unsloth.load_adapted))
    passed_on = {"quantization_config", "attn_implementation"}  # read from **kwargs
    for call in [node for node in ast.walk(ours) if isinstance(node, ast.Call)]:
        name = getattr(call.func, "attr", "")
        if name in known:
            given = {keyword.arg for keyword in call.keywords} - passed_on
            assert given <= {argument.arg for argument in known[name].args.args}, name
    source = (packages() / "unsloth/models/loader.py").read_text(encoding="utf-8")
    assert 'kwargs.get("quantization_config", None)' in source
    vision = (packages() / "unsloth/models/vision.py").read_text(encoding="utf-8")
    assert 'kwargs.get("attn_implementation", None)' in vision


def test_no_default_that_decides_a_training_is_left_to_unsloth() -> None:
    patching = function(parsed("unsloth/models/rl.py"), "_patch_trl_rl_trainers_impl")
    changed: set[str] = set()
    for node in ast.walk(patching):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "replacements":
            changed |= {ast.literal_eval(key) for key in getattr(node.value, "keys", ())}
    ours = ast.parse(inspect.getsource(arguments.grpo_config))
    given = {n.arg for n in ast.walk(ours) if isinstance(n, ast.keyword)}
    for node in ast.walk(ast.parse(inspect.getsource(engines.engine_options))):
        given |= {key.value for key in getattr(node, "keys", ()) if isinstance(key, ast.Constant)}
    assert "optim" in changed
    assert changed - given <= CHANGED_BUT_HARMLESS


@pytest.mark.parametrize("package", ["unsloth", "unsloth_zoo"])
def test_our_pins_are_versions_that_unsloth_allows(package: str) -> None:
    metadata = next(packages().glob(f"{package}-*.dist-info")) / "METADATA"
    lines = metadata.read_text(encoding="utf-8").splitlines()
    asked = [
        Requirement(line.split(": ", 1)[1]) for line in lines if line.startswith("Requires-Dist: ")
    ]
    pins = dict(
        line.split("==")
        for line in (ROOT / "requirements/gpu.txt").read_text().split()
        if "==" in line
    )
    checked = set()
    for need in asked:
        name = need.name.lower().replace("_", "-")
        if name in pins and (need.marker is None or need.marker.evaluate({"extra": ""})):
            assert pins[name] in need.specifier, f"{package} asks for {need}"
            checked.add(name)
    assert {"transformers", "trl", "torch", "datasets", "peft", "accelerate"} <= checked
    version = metadata.parent.name.split("-")[1].removesuffix(".dist")
    assert pins[package.replace("_", "-")] == version.replace(".dist", "")
