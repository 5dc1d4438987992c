"""Any value of a size from one string, and what is said of one that cannot be."""

from pathlib import Path

import pytest

from qoq_lib.model.loading import LoadError, image_area, load_base, load_model, load_size
from qoq_lib.model.overrides import override
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.methods import load_method


def test_an_empty_text_changes_nothing() -> None:
    for name in ("tiny", "3b", "7b", "32b"):
        assert override(load_size(name), "") == load_size(name)


def test_every_kind_of_value_can_be_given() -> None:
    size = override(
        load_size("7b"),
        "training.rollouts=16, trainable=[language_model, merger],dtype = float32, "
        "max_completion_length=null, training.learning_rate=1e-5, pixels.largest=300000",
    )
    assert size.training.rollouts == 16 and size.training.steps == load_size("7b").training.steps
    assert size.trainable == ["language_model", "merger"]
    assert size.dtype == "float32" and size.max_completion_length is None
    assert size.training.learning_rate == 1e-5
    assert size.pixels is not None and size.pixels.largest == 300_000
    assert size.pixels.smallest == 65_536


@pytest.mark.parametrize(
    "text, words",
    [
        ("rollouts=3", "there is no 'rollouts': did you mean training.rollouts?"),
        ("training.rolouts=3", "did you mean training.rollouts?"),
        ("trainabel=[merger]", "did you mean trainable?"),
        ("pixels=200704", "did you mean pixels.smallest or pixels.largest?"),
        ("name=8b", "there is no 'name'"),
        ("qqq=1", "there is no 'qqq': use one of base, tuning"),
        ("training.rollouts", "'training.rollouts' is not of the form name=value"),
        ("training.rollouts=", "is not of the form name=value"),
        ("training.rollouts=many", "training.rollouts is 'many': Input should be a valid integer"),
        ("training.rollouts=0", "training.rollouts is 0: Input should be greater"),
        ("training.learning_rate=.nan", "training.learning_rate is nan"),
        ("trainable=[merger, mergerr]", "trainable.1 is 'mergerr'"),
        ("training.beta=1, training.beta=2", "training.beta is given twice"),
        ("pixels.largest=100000", "largest must be at least 4 x smallest = 262144"),
        ("tuning=[lora", "the value of tuning, '[lora', cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(LoadError) as refused:
        override(load_size("7b"), text)
    assert words in str(refused.value) and str(refused.value).startswith("overrides: ")
    assert "\n" not in str(refused.value)


def test_adapters_learn_at_a_rate_of_their_own_unless_one_is_given() -> None:
    training = load_size("7b").training
    assert training.rate("lora") == training.rate("qlora")
    assert training.rate("lora") == pytest.approx(10 * training.rate("full"))
    given = override(load_size("7b"), "training.learning_rate=3e-6").training
    assert given.rate("lora") == given.rate("full") == 3e-6


def test_the_image_area_reaches_the_processor_and_stays_with_the_checkpoint(tmp_path: Path) -> None:
    size = override(load_size("tiny"), "pixels.smallest=784, pixels.largest=12544")
    model, processor = load_base(size, seed=0)
    bounds = {"shortest_edge": 784, "longest_edge": 12544}
    assert {name: processor.image_processor.size[name] for name in bounds} == bounds
    save_checkpoint(model, processor, tmp_path / "kept")
    kept = load_model(tmp_path / "kept")[1].image_processor
    assert {name: kept.size[name] for name in bounds} == bounds
    smaller = override(size, "pixels.largest=3136").pixels
    changed = load_model(tmp_path / "kept", pixels=smaller)[1].image_processor
    assert changed.size["longest_edge"] == 3136


def test_a_size_that_leaves_the_area_to_its_base_dumps_without_it() -> None:
    tiny = load_size("tiny")
    assert "pixels" not in tiny.model_dump()  # studies know their runs by the dump's hash
    assert image_area(tiny).model_dump() == {"smallest": 784, "largest": 4704}
    assert load_size("7b").model_dump()["pixels"] == image_area(load_size("7b")).model_dump()


def test_how_many_questions_are_answered_together_is_no_part_of_a_training(tmp_path: Path) -> None:
    assert "prediction_batch" not in load_size("tiny").model_dump()
    size, method = load_size("32b"), load_method("drpo")
    assert size.model_dump()["prediction_batch"] == size.prediction_batch == 4
    TrainingJob(start=tmp_path, size=size, method=method).save(tmp_path)
    fewer = override(size, "prediction_batch=2")
    assert TrainingJob(start=tmp_path, size=fewer, method=method).is_kept_in(tmp_path)
