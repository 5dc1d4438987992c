r"""How likely a model holds each option to be: log-probabilities of ``\boxed{option}``."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qoq_lib.data.prompts import AnswerStyle, to_messages
from qoq_lib.training.sharing import backbone_of, positions

_BOX = "\\boxed{"


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
    between rows: a softmax over the options is. Each prompt is read once, and one forward pass per
    option goes on from there.

    Args:
        model: in evaluation mode.
        processor: the model's.
        views: rows at the model's image size (``model_view``).
        completions: what the model said to each.
        style: how the answers were asked for.

    Returns:
        Nats, a list per row in the order of its ``options``.
    """
    inputs = prompt_inputs(model, processor, views, style)
    place = positions(backbone_of(model), inputs)
    read = model(**inputs, position_ids=place, use_cache=True, logits_to_keep=1)
    endings = [
        _endings(processor.tokenizer, text, list(view["options"]))
        for view, text in zip(views, completions, strict=True)
    ]
    scores: list[list[float]] = [[] for _ in views]
    for number in range(max(len(row) for row in endings)):
        chosen = [row[min(number, len(row) - 1)] for row in endings]
        logprobs = _ending_logprobs(model, inputs["attention_mask"], place[..., -1:], read, chosen)
        for row, found, tokens in zip(scores, logprobs, endings, strict=True):
            if number < len(tokens):
                row.append(float(found[_shared(tokens) : len(tokens[number])].sum()))
    return scores


def prompt_inputs(
    model: Any, processor: Any, views: Sequence[Mapping[str, Any]], style: AnswerStyle
) -> Any:
    """The prompts of rows (``model_view``) as the model's inputs, padded on the left."""
    return processor.apply_chat_template(
        [to_messages(view, style) for view in views],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    ).to(model.device)


def _endings(tokenizer: Any, completion: str, options: Sequence[str]) -> list[list[int]]:
    """Tokens of the completion up to its box, each option in the box."""
    before, box, _ = completion.rpartition(_BOX)
    texts = [f"{before if box else ''}{_BOX}{option}}}" for option in options]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def _shared(endings: Sequence[Sequence[int]]) -> int:
    """How many first tokens all endings share."""
    count = 0
    for tokens in zip(*endings, strict=False):
        if len(endings) == 1 or len(set(tokens)) > 1:
            break
        count += 1
    return count


def _ending_logprobs(
    model: Any,
    mask: torch.Tensor,
    last: torch.Tensor,
    read: Any,
    endings: Sequence[Sequence[int]],
) -> torch.Tensor:
    """Log-probability of each token of each row's ending behind its prompt, rows x longest.

    ``read`` is the model's output on the prompts, whose ``mask`` and ``last`` position are given.
    """
    longest = max(len(tokens) for tokens in endings)
    ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in endings])
    known = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in endings])
    ids = ids.to(mask.device)
    behind = model(
        input_ids=ids,
        attention_mask=torch.cat([mask, known.to(mask)], dim=1),
        position_ids=last + 1 + torch.arange(longest, device=mask.device),
        past_key_values=read.past_key_values,
    )
    read.past_key_values.crop(-longest)  # the next ending goes on from the prompts alone
    logits = torch.cat([read.logits, behind.logits[:, :-1]], dim=1).float()
    chances = logits.log_softmax(dim=-1).gather(-1, ids[..., None])
    return torch.as_tensor(chances.squeeze(-1).cpu())
