"""The model: rows of any modality, each with its own media, on transformers' own classes."""

import copy
from typing import Any

import pytest
import torch
from chats import ROWS, Row, Tiny, ask, ecg, image, inputs_of, row_logits
from datasets import Dataset

from qoq_lib.data.phantom import make_phantom
from qoq_lib.evaluation.predict import complete, predict
from qoq_lib.model.modeling_qoq import MediaMismatchError
from qoq_lib.model.pixels import model_view
from qoq_lib.model.processing_qoq import QoQProcessor
from qoq_lib.model.tiny import tiny_model

TOLERANCE = 1e-5  # float32 sums in another order; the logits themselves spread over about two


def test_it_is_tiny(tiny: Tiny) -> None:
    assert sum(weight.numel() for weight in tiny[0].parameters()) <= 3_000_000


def test_the_seed_decides_the_bytes(tiny: Tiny) -> None:
    expected, same = tiny[0].state_dict(), tiny_model(0)[0].state_dict()
    assert set(same) == set(expected)
    assert all(torch.equal(same[name], expected[name]) for name in expected)
    other = tiny_model(1)[0].state_dict()
    assert not torch.equal(other["lm_head.weight"], expected["lm_head.weight"])
    name = "model.ecg_encoder.embed.weight"
    assert not torch.equal(other[name], expected[name])


def test_a_row_alone_and_in_a_batch_gives_the_same_logits(loud: Tiny) -> None:
    for row, logits in zip(ROWS, row_logits(loud, ROWS), strict=True):
        assert torch.allclose(row_logits(loud, [row])[0], logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("order", [[3, 0, 4, 2, 1], [4, 3, 2, 1, 0], [1, 2, 0, 4, 3]])
def test_shuffled_rows_give_shuffled_logits(loud: Tiny, order: list[int]) -> None:
    straight, shuffled = row_logits(loud, ROWS), row_logits(loud, [ROWS[i] for i in order])
    for logits, index in zip(shuffled, order, strict=True):
        assert torch.allclose(logits, straight[index], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind, row, part", [("ecg", 3, 2), ("image", 3, 3), ("image", 4, 0)])
def test_new_media_change_their_own_row_and_no_bit_of_another(
    loud: Tiny, kind: str, row: int, part: int
) -> None:
    rows = [list(parts) for parts in ROWS]
    rows[row][part] = {"ecg": ecg, "image": image}[kind]()
    for index, (a, b) in enumerate(
        zip(row_logits(loud, ROWS), row_logits(loud, rows), strict=True)
    ):
        assert torch.equal(a, b) == (index != row)


def test_what_the_ecg_shows_and_where_it_stands_matters(tiny: Tiny, loud: Tiny) -> None:
    first, second = ecg(), ecg()
    chats: list[Row] = [[first, second, ask("?")], [second, first, ask("?")]]
    logits = [row[-1] for row in row_logits(loud, [*chats, [first, first, ask("?")]])]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (logits[a] - logits[b]).abs().max() > 1e-2
    quiet = row_logits(tiny, [[first, ask("?")], [second, ask("?")]])
    assert (quiet[0][-1] - quiet[1][-1]).abs().max() > 1e-6


def test_a_batch_of_ecgs_is_encoded_in_one_call(tiny: Tiny) -> None:
    torch.manual_seed(0)
    signals = torch.randn(32, 8, 2500)
    with torch.no_grad():
        together = tiny[0].model.get_ecg_features(signals)
        alone = tiny[0].model.get_ecg_features(signals[7:8])[0]
    assert together.shape == (32, 8, tiny[0].config.text_config.hidden_size)
    assert torch.allclose(together[7], alone, rtol=0, atol=TOLERANCE)


def test_several_samples_of_a_row_all_see_its_ecgs(loud: Tiny) -> None:
    inputs = inputs_of(loud[1], ROWS)
    options: dict[str, Any] = {"max_new_tokens": 8}
    with torch.no_grad():
        greedy = loud[0].generate(**inputs, do_sample=False, **options)
        thrice = loud[0].generate(
            **inputs, do_sample=True, top_k=1, num_return_sequences=3, **options
        )
    assert torch.equal(thrice, greedy.repeat_interleave(3, dim=0))
    assert len({tuple(row) for row in greedy[:, -8:].tolist()}) > 1


def test_ecgs_that_do_not_fit_their_row_are_refused(tiny: Tiny) -> None:
    model, inputs = tiny[0], inputs_of(tiny[1], ROWS)
    swapped = inputs["ecg_counts"].clone()
    swapped[[1, 2]] = swapped[[2, 1]]
    with pytest.raises(
        MediaMismatchError,
        match="Row 1 .* 8 ECG placeholder tokens for 0 ECGs, each of which takes 8",
    ):
        model(**{**inputs, "ecg_counts": swapped})
    with pytest.raises(MediaMismatchError, match="5 rows .* for 3 ECGs"):
        model(**{**inputs, "ecg_values": inputs["ecg_values"][:-1]})
    with pytest.raises(MediaMismatchError, match="5 rows came with 4"):
        model(**{**inputs, "ecg_counts": inputs["ecg_counts"][:-1]})
    with pytest.raises(MediaMismatchError, match="'ecg_counts'"):
        model(**{**inputs, "ecg_counts": None})


@pytest.mark.parametrize("samples", [1, 2])
def test_a_processor_with_other_ecg_tokens_is_refused(tiny: Tiny, samples: int) -> None:
    model, processor = tiny
    other = QoQProcessor(processor.image_processor, processor.tokenizer, ecg_tokens=4)
    said = (
        "Row 1 of the batch has 4 ECG placeholder tokens for 1 ECGs, each of which takes 8 in this "
        "model: use the processor saved with it, or one with ecg_tokens=8."
    )
    with pytest.raises(MediaMismatchError) as error:
        model.generate(
            **inputs_of(other, ROWS), do_sample=True, num_return_sequences=samples, max_new_tokens=1
        )
    assert str(error.value) == said


@pytest.mark.parametrize("medium, row, lost", [("ECG", 1, "ecg"), ("image", 0, "pixel")])
@pytest.mark.parametrize("empty", [True, False])
def test_placeholders_without_any_medium_are_refused(
    tiny: Tiny, medium: str, row: int, lost: str, empty: bool
) -> None:
    inputs = inputs_of(tiny[1], ROWS)
    name = f"{lost}_values"
    inputs[name] = inputs[name][:0] if empty else None
    with pytest.raises(MediaMismatchError, match=f"Row {row} .* but no {medium} was given"):
        tiny[0](**inputs)


def test_gradients_reach_the_projector_and_the_encoder(tiny: Tiny) -> None:
    model, inputs = copy.deepcopy(tiny[0]), inputs_of(tiny[1], ROWS)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    for part in (model.model.ecg_projector, model.model.ecg_encoder, model.model.visual):
        for name, weight in part.named_parameters():
            assert weight.grad is not None and weight.grad.abs().max() > 0, name


@pytest.fixture(scope="module")
def phantom() -> Dataset:
    rows = make_phantom(180, seed=0)
    seen: dict[str, int] = {}
    for index, domain in enumerate(rows["domain"]):
        seen.setdefault(domain, index)
    return rows.select(sorted(seen.values()))


def test_predictions_do_not_depend_on_the_batch_size(loud: Tiny, phantom: Dataset) -> None:
    tables = [
        predict(*loud, phantom, style="brief", max_new_tokens=6, batch_size=size) for size in (1, 4)
    ]
    assert len(phantom) == 9
    assert tables[0].equals(tables[1])
    assert tables[0]["id"].tolist() == phantom["id"]
    assert tables[0]["boxes"].notna().any() and tables[0]["sex"].notna().all()


def test_completions_hold_no_prompt_and_no_special_tokens(loud: Tiny, phantom: Dataset) -> None:
    views = [model_view(row, loud[1].image_processor) for row in phantom]
    for text in complete(*loud, views, "brief", max_new_tokens=6):
        assert "<|" not in text and "Options" not in text
