"""Rollouts that share their prompt give the numbers of rollouts that do not."""

from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.trainer.utils import selective_log_softmax

from qoq_lib.data.phantom import make_phantom
from qoq_lib.data.prompts import to_messages
from qoq_lib.model.pixels import model_view
from qoq_lib.training.sharing import (
    Layout,
    Prompt,
    SharedPrompts,
    collate,
    read_prompts,
)

CPU = torch.device("cpu")
LENGTH = 5


@pytest.fixture(scope="module")
def prompts(tiny: Any) -> list[Prompt]:
    """An ECG with a report, images of two domains and a question without media, lengths mixed."""
    _, processor = tiny
    rows: Dataset = make_phantom(200, seed=1)
    wanted = ("ecg", "chest_xray", "pathology")
    views = [
        model_view(next(row for row in rows if row["domain"] == name), processor.image_processor)
        for name in wanted
    ]
    chats = [to_messages(view, "brief") for view in views]
    chats.append([{"role": "user", "content": [{"type": "text", "text": "Options: a; b"}]}])
    return read_prompts(processor, chats, range(len(chats)))


def plain_logps(model: Any, rows: list[Prompt], completions: torch.Tensor) -> torch.Tensor:
    batch = collate(rows, CPU, 0)
    extra = torch.ones_like(completions)
    ids = torch.cat([batch["input_ids"], completions], dim=1)
    batch |= {
        "input_ids": ids,
        "attention_mask": torch.cat([batch["attention_mask"], extra], dim=1),
        "mm_token_type_ids": torch.cat([batch["mm_token_type_ids"], extra * 0], dim=1),
    }
    logits = model(**batch, logits_to_keep=LENGTH + 1).logits[:, :-1]
    return selective_log_softmax(logits, completions)


def shared_logps(model: Any, rows: list[Prompt], completions: torch.Tensor) -> torch.Tensor:
    ids = torch.cat([collate(rows, CPU, 0)["input_ids"], completions], dim=1)
    shared = SharedPrompts(model, model.model, rows, 0)
    logits = shared(ids, torch.ones_like(ids), logits_to_keep=LENGTH + 1).logits[:, :-1]
    return selective_log_softmax(logits, completions)


@pytest.mark.parametrize(
    "owners", [[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [2, 0, 3, 2, 1, 0, 0], [1], [0, 0], [3, 3, 3]]
)
def test_log_probabilities_equal_those_of_separate_rows(
    tiny: Any, prompts: list[Prompt], owners: list[int]
) -> None:
    model, _ = tiny
    rows = [prompts[owner] for owner in owners]
    completions = torch.randint(20, 200, (len(rows), LENGTH), generator=torch.manual_seed(0))
    with torch.no_grad():
        separate = plain_logps(model, rows, completions)
        together = shared_logps(model, rows, completions)
    torch.testing.assert_close(together, separate, atol=1e-5, rtol=0)


def test_gradients_equal_those_of_separate_rows(tiny: Any, prompts: list[Prompt]) -> None:
    model, _ = tiny
    rows = [prompts[owner] for owner in (0, 0, 1, 1)]
    completions = torch.randint(20, 200, (4, LENGTH), generator=torch.manual_seed(1))
    weights = [model.model.ecg_projector.fc1.weight, model.model.visual.merger.mlp[0].weight]
    separate = torch.autograd.grad(plain_logps(model, rows, completions).sum(), weights)
    together = torch.autograd.grad(shared_logps(model, rows, completions).sum(), weights)
    for ours, theirs in zip(together, separate, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=1e-3)


def test_permuting_rows_permutes_their_log_probabilities(tiny: Any, prompts: list[Prompt]) -> None:
    model, _ = tiny
    rows = [prompts[owner] for owner in (0, 0, 1, 2, 2, 3)]
    completions = torch.randint(20, 200, (len(rows), LENGTH), generator=torch.manual_seed(3))
    order = torch.randperm(len(rows), generator=torch.manual_seed(4))
    with torch.no_grad():
        before = shared_logps(model, rows, completions)
        after = shared_logps(model, [rows[index] for index in order], completions[order])
    torch.testing.assert_close(after, before[order], atol=1e-5, rtol=0)
    assert len({tuple(row) for row in before.tolist()}) == len(rows)


def test_a_rollout_is_blind_to_its_neighbours(tiny: Any, prompts: list[Prompt]) -> None:
    model, _ = tiny
    rows = [prompts[0]] * 3
    completions = torch.randint(20, 200, (3, LENGTH), generator=torch.manual_seed(2))
    changed = completions.clone()
    changed[1:] = 30
    with torch.no_grad():
        before, after = (shared_logps(model, rows, ids) for ids in (completions, changed))
    torch.testing.assert_close(before[0], after[0], atol=0, rtol=0)
    assert not torch.equal(before[1], after[1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_a_layout_gives_each_row_back(owners: list[int]) -> None:
    present = sorted(set(owners))
    layout = Layout.of([present.index(owner) for owner in owners], len(present))
    rows = torch.arange(len(owners) * 2).view(-1, 2)
    packed = layout.behind(torch.full((len(present), 1), -1), rows, -2)
    logits = packed.unsqueeze(-1)
    back = layout.rows_of(logits, 2).squeeze(-1)
    assert torch.equal(back[:, 1:], rows)
    assert (back[:, 0] == -1).all()
