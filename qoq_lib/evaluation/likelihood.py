r"""How likely a model holds each option to be: log-probabilities of ``\boxed{option}``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qoq_lib.data.prompts import AnswerStyle
from qoq_lib.evaluation.prompting import prompt_inputs
from qoq_lib.training.sharing import backbone_of, left_padded, positions

_BOX = "\\boxed{"


@dataclass(frozen=True)
class _Read:
    """What the model has read of some rows.

    Attributes:
        cache: its keys and values.
        mask: rows x tokens, 1 where the cache holds a token of the row.
        place: 3 x rows x 1, position of the last token.
        logits: rows x 1 x vocabulary, behind it.
    """

    cache: Any
    mask: torch.Tensor
    place: torch.Tensor
    logits: torch.Tensor


@torch.no_grad()
def option_logprobs(
    model: Any,
    processor: Any,
    views: Sequence[Mapping[str, Any]],
    completions: Sequence[str],
    style: AnswerStyle,
) -> list[list[float]]:
    r"""Log-probability of each option of each row, in the place of the answer.

    The model's own completion is kept up to its last ``\boxed{``, so that an option is judged after
    the reasoning; a completion without one is judged without its text. The sum runs over the tokens
    of ``option}`` from the first that differs between the row's options, so it is not comparable
    between rows: a softmax over the options is. What comes before that token is read once, and one
    forward pass per option goes on from there: logits, which take the most memory, are computed for
    the tokens that are summed alone.

    Args:
        model: in evaluation mode.
        processor: the model's.
        views: rows at the model's image size (``model_view``).
        completions: what the model said to each.
        style: how the answers were asked for.

    Returns:
        Nats, a list per row in the order of its ``options``.
    """
    endings = [
        _endings(processor.tokenizer, text, list(view["options"]))
        for view, text in zip(views, completions, strict=True)
    ]
    shared = [_shared(row) for row in endings]
    begun = [row[0][:count] for row, count in zip(endings, shared, strict=True)]
    tails = [[tokens[count:] for tokens in row] for row, count in zip(endings, shared, strict=True)]
    read = _read(model, prompt_inputs(model, processor, views, style), begun)
    scores: list[list[float]] = [[] for _ in views]
    for number in range(max(len(row) for row in tails)):
        chosen = [row[min(number, len(row) - 1)] for row in tails]
        logprobs = _tail_logprobs(model, read, chosen)
        for row, found, tokens in zip(scores, logprobs, tails, strict=True):
            if number < len(tokens):
                row.append(float(found[: len(tokens[number])].sum()))
    return scores


def _endings(tokenizer: Any, completion: str, options: Sequence[str]) -> list[list[int]]:
    """Tokens of the completion up to its box, each option in the box."""
    before, box, _ = completion.rpartition(_BOX)
    texts = [f"{before if box else ''}{_BOX}{option}}}" for option in options]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def _shared(endings: Sequence[Sequence[int]]) -> int:
    """How many first tokens all endings share, less the last of the shortest: one is scored."""
    count, most = 0, min(len(tokens) for tokens in endings) - 1
    while count < most and len({tokens[count] for tokens in endings}) == 1:
        count += 1
    return count


def _read(model: Any, inputs: Any, begun: Sequence[Sequence[int]]) -> _Read:
    """The prompts, and in a second pass the text behind each: no pass is larger than in sampling.

    The second pass begins with the prompts' last token, so that none of its rows is empty.
    """
    place = positions(backbone_of(model), inputs)
    cache = model(**inputs, position_ids=place, use_cache=True, logits_to_keep=1).past_key_values
    cache.crop(-1)
    ends = inputs["input_ids"][:, -1].tolist()
    rows = [torch.tensor([end, *tokens]) for end, tokens in zip(ends, begun, strict=True)]
    width = max(len(row) for row in rows)
    known = left_padded([torch.ones_like(row) for row in rows], width, 0).to(model.device)
    mask = torch.cat([inputs["attention_mask"][:, :-1], known], dim=1)
    place = place[..., -1:] - 1 + known.cumsum(dim=1)
    behind = model(
        input_ids=left_padded(rows, width, 0).to(model.device),
        attention_mask=mask,
        position_ids=place,
        past_key_values=cache,
        logits_to_keep=1,
    )
    return _Read(cache, mask, place[..., -1:], behind.logits)


def _tail_logprobs(model: Any, read: _Read, tails: Sequence[Sequence[int]]) -> torch.Tensor:
    """Log-probability of each token of each row's tail behind what was read, rows x longest."""
    longest = max(len(tokens) for tokens in tails)
    ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in tails])
    known = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in tails])
    ids = ids.to(model.device)
    behind = model(
        input_ids=ids,
        attention_mask=torch.cat([read.mask, known.to(read.mask)], dim=1),
        position_ids=read.place + 1 + torch.arange(longest, device=model.device),
        past_key_values=read.cache,
    )
    read.cache.crop(-longest)  # the next option goes on from the same place
    logits = torch.cat([read.logits, behind.logits[:, :-1]], dim=1).float()
    chances = logits.log_softmax(dim=-1).gather(-1, ids[..., None])
    return torch.as_tensor(chances.squeeze(-1).cpu())
