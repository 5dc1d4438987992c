"""Predictions: what a table carries, options' odds, answers of others."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from chats import Tiny
from datasets import Dataset

from qoq_lib.data.phantom import make_phantom
from qoq_lib.data.prompts import to_messages
from qoq_lib.evaluation import predict as module
from qoq_lib.evaluation.decoding import decoding_notes, loaded_from
from qoq_lib.evaluation.elsewhere import join_predictions
from qoq_lib.evaluation.likelihood import option_logprobs
from qoq_lib.evaluation.metrics import PredictionsError, evaluate
from qoq_lib.evaluation.predict import predict
from qoq_lib.model.loading import load_model
from qoq_lib.model.pixels import model_view


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Eight questions of three modalities, some with a lesion."""
    return make_phantom(200, seed=0).select(range(8))


def ask(tiny: Tiny, rows: Dataset, **options: Any) -> pd.DataFrame:
    return predict(
        *tiny, rows, **{"style": "brief", "max_new_tokens": 5, "batch_size": 3} | options
    )


def test_a_table_holds_what_the_metrics_need(loud: Tiny, rows: Dataset) -> None:
    table = ask(loud, rows, logprobs=True)
    for row, said in zip(rows, table.to_dict("records"), strict=True):
        view = model_view(row, loud[1].image_processor)
        assert said["image_size"] == (list(view["images"][0].size) if view["images"] else None)
        assert (said["boxes"] is None) == (not row["boxes"]) == (said["mask"] is None)
        assert len(said["option_logprobs"]) == len(row["options"])
        assert 1 <= said["n_tokens"] <= 5 and said["sex"] == row["sex"]
    assert table["prompt_hash"].nunique() == len(rows)
    scores = evaluate(table)
    assert {"box_iou", "mask_iou", "pointing", "auroc", "tokens"} <= set(scores["overall"])
    assert set(scores["subgroups"]) == {"sex", "age"}


def test_a_table_says_how_it_was_decoded_and_by_what(
    loud: Tiny, rows: Dataset, tmp_path: Path
) -> None:
    two, path = rows.select(range(2)), tmp_path / "someone" / "trained"
    for part in loud:
        part.save_pretrained(path)
    model, processor = load_model(path)
    asked = {"temperature": 0.7, "seed": 3}
    table = ask((model, processor), two, path=tmp_path / "kept.parquet", **asked)
    names = ("temperature", "seed", "max_new_tokens", "style", "loaded_from")
    assert set(table[list(names)].itertuples(index=False, name=None)) == {
        (0.7, 3, 5, "brief", "trained")
    }
    assert set(table["weights"]) == {module.weights_fingerprint(loud[0])}
    assert "someone" not in table.to_csv()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/home/x/.cache/hub/models--org--qoq-med/snapshots/0a1b", "org/qoq-med@0a1b"),
        ("/home/x/runs/a/checkpoints/trained", "trained"),
        ("org/qoq-med", "org/qoq-med"),
        ("", None),
    ],
)
def test_a_model_is_named_without_the_path_of_a_person(name: str, told: str | None) -> None:
    assert loaded_from(SimpleNamespace(name_or_path=name)) == told


def test_notes_tell_decodings_and_where_they_differ() -> None:
    facts = {"temperature": 1.0, "max_new_tokens": 64, "style": "brief", "seed": 2}
    sampled, older = pd.DataFrame([facts] * 3), pd.DataFrame({"id": ["a"]})
    said = "Answers of aligned, trained: sampled at temperature 1 with seed 2, at most 64 new "
    assert decoding_notes({"aligned": sampled, "trained": sampled}) == [
        f"{said}tokens, brief style."
    ]
    greedy = sampled.assign(temperature=0.0).astype(str)  # as a .csv file gives it
    assert decoding_notes({"old": older, "aligned": sampled, "trained": greedy}) == [
        "How the answers of old were decoded is not known.",
        f"{said}tokens, brief style.".replace("aligned, trained", "aligned"),
        "Answers of trained: greedy, at most 64 new tokens, brief style.",
        "Decoded otherwise than the answers of trained, so that a gain is not the model's alone: "
        "aligned.",
    ]
    other_seed = {"aligned": sampled.assign(seed=3), "trained": sampled}
    assert not any("otherwise" in note for note in decoding_notes(other_seed))


def test_the_mask_lies_where_the_boxes_lie(loud: Tiny, rows: Dataset) -> None:
    table = ask(loud, rows)
    told = table[table["boxes"].notna()].iloc[0]
    box = [{"bbox_2d": list(corners), "label": "x"} for corners in told["boxes"]]
    exact = f"```json\n{box}\n```\\boxed{{a}}".replace("'", '"')
    scores = evaluate(pd.DataFrame([dict(told) | {"completion": exact}]))["overall"]
    assert scores["box_iou"] == 1.0 and scores["mask_iou"] > 0.5 and scores["pointing"] == 1.0


def test_a_prompt_hash_changes_with_question_image_and_style(loud: Tiny, rows: Dataset) -> None:
    processor = loud[1]
    row = model_view(next(row for row in rows if row["images"]), processor.image_processor)
    turned = [image.transpose(0) for image in row["images"]]
    asked = [row, row | {"question": "?"}, row | {"images": turned}, row | {"report": "Fever."}]
    hashes = {module.prompt_hash(processor, view, "brief") for view in asked}
    hashes.add(module.prompt_hash(processor, row, "reasoning"))
    assert len(hashes) == 5
    assert module.prompt_hash(processor, dict(row), "brief") in hashes


def test_sampling_leaves_the_callers_random_numbers_alone(loud: Tiny, rows: Dataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, other = (ask(loud, rows, temperature=1.0, seed=seed) for seed in (0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert first["completion"].tolist() != other["completion"].tolist()


@pytest.mark.parametrize("said", ["", "so it is \\boxed{what"])
def test_options_are_scored_as_one_text_at_a_time(loud: Tiny, rows: Dataset, said: str) -> None:
    model, processor = loud
    views = [model_view(row, processor.image_processor) for row in rows]
    together = option_logprobs(model, processor, views, [said] * len(views), "brief")
    before = said.rpartition("\\boxed{")[0]
    for view, scores in zip(views[:3], together, strict=False):
        whole = [whole_text(loud, view, f"{before}\\boxed{{{name}}}") for name in view["options"]]
        assert np.diff(scores) == pytest.approx(np.diff(whole), abs=1e-3)


def test_logits_are_computed_for_the_scored_tokens_alone(loud: Tiny, rows: Dataset) -> None:
    model, processor = loud
    views = [model_view(row, processor.image_processor) for row in rows]
    views[0] |= {"options": views[0]["options"][:1]}  # nothing differs, so its last token counts
    counts: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda *seen: counts.append(seen[2][..., 0].numel()))
    try:
        for words in (0, 1, 40):
            said = [f"{'so it is ' * words * (row % 3)}\\boxed{{" for row in range(len(views))]
            scores = option_logprobs(model, processor, views, said, "brief")
            assert [len(row) for row in scores] == [len(view["options"]) for view in views]
    finally:
        hook.remove()
    passes = len(counts) // 3
    assert counts[:passes] == counts[passes : 2 * passes] == counts[2 * passes :]
    assert counts[0] == len(views)


def whole_text(tiny: Tiny, view: dict[str, Any], ending: str) -> float:
    """Log-probability of all tokens of ``ending`` after the prompt, in one plain forward pass."""
    model, processor = tiny
    inputs = processor.apply_chat_template(
        [to_messages(view, "brief")],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    added = torch.tensor([processor.tokenizer(ending, add_special_tokens=False)["input_ids"]])
    added_to = {"input_ids": added, "attention_mask": torch.ones_like(added)}
    added_to["mm_token_type_ids"] = torch.zeros_like(added)
    whole = {name: torch.cat([inputs[name], added_to[name]], dim=1) for name in added_to}
    with torch.no_grad():
        logits = model(**{**inputs, **whole}).logits[0, -added.shape[1] - 1 : -1]
    return float(logits.log_softmax(-1).gather(-1, added.T).sum())


def answers(rows: Dataset) -> pd.DataFrame:
    texts = [f"\\boxed{{{row['answers'][0]}}}" for row in rows]
    return pd.DataFrame({"id": rows["id"], "completion": texts})


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_answers_made_elsewhere_are_scored_like_ours(
    rows: Dataset, tmp_path: Path, kind: str
) -> None:
    table, path = answers(rows).sample(frac=1, random_state=0), tmp_path / f"other.{kind}"
    table.loc[table["id"] == rows["id"][0], "completion"] = ""
    {
        "parquet": lambda: table.to_parquet(path),
        "csv": lambda: table.to_csv(path, index=False),
        "jsonl": lambda: table.to_json(path, orient="records", lines=True),
    }[kind]()
    found = join_predictions(rows, path)
    assert found["id"].tolist() == rows["id"]
    assert evaluate(found)["overall"]["rows"]["exact_match"] == len(rows)
    assert found["completion"].iloc[0] == ""
    boxed = next(number for number, row in enumerate(rows) if row["boxes"])
    assert found["boxes"].iloc[boxed] == rows[boxed]["boxes"]
    assert found["image_size"].iloc[boxed] == list(rows[boxed]["images"][0].size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="id"), "there is no column 'id'"),
        (lambda t: t.iloc[1:], r"^The answers: 1 id \('phantom/\S+'\) of 8 questions without"),
        (lambda t: pd.concat([t, t.head(2)]), r"2 ids \('phantom/.+ more than once"),
        (lambda t: t.assign(id="x" + t["id"]), r"8 ids \(.+, …\) not among the 8 questions"),
        (lambda t: t.assign(id=[None, *t["id"][1:]]), "^The answers: 1 of 8 rows have no id; give"),
        (lambda t: t.assign(completion=None), "8 ids .+ without a completion"),
    ],
)
def test_answers_that_do_not_fit_are_refused_in_one_sentence(
    rows: Dataset, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(PredictionsError, match=message) as caught:
        join_predictions(rows, change(answers(rows)))
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_answers_of_numerals_are_texts(rows: Dataset, tmp_path: Path, kind: str) -> None:
    table, path = (
        answers(rows).assign(completion=["1", "02", *"345678"]),
        tmp_path / f"other.{kind}",
    )
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True)
    assert join_predictions(rows, path)["completion"].tolist() == ["1", "02", *"345678"]


def test_log_probabilities_are_read_from_a_csv(rows: Dataset, tmp_path: Path) -> None:
    path, odds = tmp_path / "other.csv", [[-0.5] * len(options) for options in rows["options"]]
    table = answers(rows).assign(option_logprobs=odds, n_tokens=["", *"1234567"])
    table.to_csv(path, index=False)
    found = join_predictions(rows, path)
    assert found["option_logprobs"].tolist() == odds
    scores = evaluate(found)["overall"]["rows"]
    assert scores["calibration_error"] == 8 and scores["tokens"] == 7
    table.assign(option_logprobs="-0.5; -0.5").to_csv(path, index=False)
    with pytest.raises(PredictionsError, match="^Row '.+' has the option_logprobs '-0.5; -0.5'"):
        evaluate(join_predictions(rows, path))


def test_a_file_of_another_kind_or_none_is_refused(rows: Dataset, tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"^answers.txt is none of \.parquet, \.csv"):
        join_predictions(rows, tmp_path / "answers.txt")
    with pytest.raises(PredictionsError, match=r"^answers.csv cannot be read"):
        join_predictions(rows, tmp_path / "answers.csv")
