"""Every file of configs/method: what it may say, and that its arm trains."""

from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
import yaml
from datasets import Dataset, concatenate_datasets

from qoq_lib.data.phantom import make_phantom
from qoq_lib.model.loading import LoadError, load_model, load_size, tiny_model
from qoq_lib.runs import declared_parameters, project_root
from qoq_lib.training import launch, methods
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.drpo import PRESETS
from qoq_lib.training.estimators import ESTIMATORS
from qoq_lib.training.job import TrainingJob
from qoq_lib.training.methods import balanced, load_method
from qoq_lib.training.rollouts import read_rollouts
from qoq_lib.training.sft import AnswerTrainer
from qoq_lib.training.trainer import DRPOTrainer

FILES = sorted((project_root() / "configs" / "method").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
QUESTIONS, ROLLOUTS = 2, 2


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Sixteen training questions, four of them on ECGs."""
    train = make_phantom(300, seed=1).filter(lambda s: s == "train", input_columns="split")
    ecgs = train.filter(lambda d: d == "ecg", input_columns="domain").select(range(4))
    images = train.filter(lambda d: d != "ecg", input_columns="domain").select(range(12))
    return concatenate_datasets([ecgs, images])


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    save_checkpoint(*tiny_model(0), folder)
    return folder


def train(name: str, start: Path, rows: Dataset, out: Path, steps: int = 2) -> Any:
    size = load_size("tiny")
    plan = {"steps": steps, "questions_per_step": QUESTIONS, "rollouts": ROLLOUTS, "micro_batch": 4}
    size.training = size.training.model_copy(update=plan)
    size.max_completion_length = 4
    out.mkdir()
    return launch.train(TrainingJob(start=start, size=size, method=load_method(name)), rows, out)


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_trains_two_steps(start: Path, rows: Dataset, tmp_path: Path, name: str) -> None:
    model, _, log = train(name, start, rows, tmp_path / "run")
    assert len(log) == 2
    assert log["loss"].notna().all()
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert (tmp_path / "run" / "checkpoints" / "trained" / "config.json").exists()
    if load_method(name).advantages is not None:
        rollouts = read_rollouts(tmp_path / "run" / "rollouts")
        generations = [[1, 2], [1]][load_method(name).updates_per_generation > 1]
        assert sorted(rollouts["step"].unique()) == generations
        assert (rollouts.groupby(["step", "id"]).size() % ROLLOUTS == 0).all()
        assert rollouts["advantage"].notna().all()


def test_arms_see_the_same_questions_in_the_same_order(
    start: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[str] = []
    inner = AnswerTrainer.training_step

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        sampler = self._get_train_sampler()
        taught[:] = [self.train_dataset[i]["row"]["id"] for i in list(sampler)[: 2 * QUESTIONS]]
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(AnswerTrainer, "training_step", spy)
    train("sft", start, rows, tmp_path / "sft")
    seen = {}
    for name in ("drpo", "grpo"):
        train(name, start, rows, tmp_path / name)
        rollouts = read_rollouts(tmp_path / name / "rollouts")
        seen[name] = rollouts["id"].tolist()[::ROLLOUTS]
        first = rollouts[rollouts["step"] == 1]
        seen[f"{name} says"] = first["completion"].tolist()
    assert seen["drpo"] == seen["grpo"] == taught
    assert seen["drpo says"] == seen["grpo says"]  # the same policy, the same random numbers


def test_the_grpo_arm_has_the_advantages_of_trl(
    start: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    inner = DRPOTrainer._replace_advantages

    def spy(self: Any, output: dict[str, Any], *args: Any) -> None:
        stock = output["advantages"]
        inner(self, output, *args)
        pairs.append((stock, output["advantages"]))

    def half(completions: list, **_: Any) -> list[float]:
        return [0.5 * (index % 3) for index in range(len(completions))]

    monkeypatch.setattr(DRPOTrainer, "_replace_advantages", spy)
    monkeypatch.setattr("qoq_lib.training.launch.reward_functions", lambda _: ([half], [1.0]))
    train("grpo", start, rows, tmp_path / "run")
    assert pairs[0][0].any()
    assert all(torch.allclose(stock, ours, atol=1e-5) for stock, ours in pairs)


def test_remax_compares_with_a_greedy_completion(
    start: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[list[str]] = []

    def reward(completions: list, **_: Any) -> list[float]:
        texts.append([chat[0]["content"] for chat in completions])
        return [float(len(text)) for text in texts[-1]]

    monkeypatch.setattr("qoq_lib.training.launch.reward_functions", lambda _: ([reward], [1.0]))
    train("remax", start, rows, tmp_path / "run")
    greedy, sampled = texts[0], texts[1]
    assert greedy[0] == greedy[1] and greedy[2] == greedy[3]  # one per question
    rollouts = read_rollouts(tmp_path / "run" / "rollouts")
    first = rollouts[rollouts["step"] == 1]
    expected = [float(len(s) - len(g)) for s, g in zip(sampled, greedy, strict=True)]
    assert first["advantage"].tolist() == pytest.approx(expected)


def test_the_notebook_lists_exactly_the_arms() -> None:
    notebook = nbformat.read(project_root() / "notebooks" / "03_drpo_train.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    comment = declared_parameters(cell.source)["method"].comment
    assert sorted(part.strip() for part in comment.split(";")[0].split("|")) == NAMES


def test_every_method_of_the_paper_is_there() -> None:
    arms = {load_method(name).advantages for name in NAMES}
    assert arms == {None} | set(ESTIMATORS)
    presets = {load_method(name).drpo.get("preset") for name in NAMES}
    assert presets - {None} == set(PRESETS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("advantages: ppo", "advantages: .*'ppo'.*use .*drpo.*grpo"),
        ("advantages: grpo\ngrpo: {max_steps: 9}", "grpo: .*'max_steps'.*use beta"),
        ("advantages: grpo\ngrpo: {scale_rewards: none}", "grpo: .*'scale_rewards'"),
        ("advantages: drpo\ndrpo: {windw: 9}", "drpo: .*'windw'.*window"),
        ("advantages: drpo\ndrpo: {preset: best}", "drpo: .*'best'.*paper"),
        ("advantages: grpo\nsampling: odd", "sampling: .*as_is"),
        ("advantages: grpo\nupdates_per_generation: 0", "updates_per_generation"),
        ("advantage: grpo", "advantage"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    monkeypatch.setattr(methods, "read_config", lambda kind, name: yaml.safe_load(text))
    with pytest.raises(LoadError, match=rf"configs/method/x\.yaml, {problem}"):
        load_method("x")


def test_balanced_rows_have_every_domain_equally_often_and_keep_their_number() -> None:
    domains = ["ct"] * 900 + ["ecg"] * 90 + ["mri"] * 10
    rows = Dataset.from_dict({"domain": domains, "id": list(range(1000))})
    drawn = balanced(rows, seed=3)
    assert len(drawn) == 1000
    counts = Counter(drawn["domain"])
    assert all(250 < counts[name] < 420 for name in ("ct", "ecg", "mri"))
    times = Counter(row["id"] for row in drawn if row["domain"] == "mri")
    assert len(times) == 10 and max(times.values()) - min(times.values()) <= 1
    assert balanced(rows, seed=3)["id"] == drawn["id"] != balanced(rows, seed=4)["id"]


def test_the_supervised_arm_learns_the_answers(start: Path, rows: Dataset, tmp_path: Path) -> None:
    model, _, log = train("sft", start, rows, tmp_path / "run", steps=16)
    before, _ = load_model(start)
    moved = model.model.ecg_projector.fc2.weight - before.model.ecg_projector.fc2.weight
    assert log["loss"].tail(4).mean() < 0.9 * log["loss"].head(4).mean()
    assert moved.abs().max() > 0
