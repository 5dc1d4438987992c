"""Attention of a decoding step over keys and values that several query heads share.

Under a mask, which a static cache and padded prompts need, transformers' ``sdpa`` first copies keys
and values for each query head that shares them: with 28 query heads and four of keys and values
that is seven times the cache, in every layer and step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHARED_HEADS = "sdpa_shared_heads"


def shared_heads(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' ``sdpa`` up to rounding; a query of one token reads the cache as it is.

    Args:
        module: the attention layer.
        query: rows x heads x tokens x width.
        key: rows x key-value heads x held tokens x width, and so is ``value``.
        value: see ``key``.
        attention_mask: rows x 1 x tokens x held tokens, if any.
        dropout: share of the attention's weights.
        scaling: of the scores.
        kwargs: what else transformers' ``sdpa`` takes.

    Returns:
        Rows x tokens x heads x width, and no weights.
    """
    if query.shape[2] > 1:
        given = (module, query, key, value, attention_mask, dropout, scaling)
        return sdpa_attention_forward(*given, **kwargs)
    # Heads that share keys stand side by side: they pass for the tokens of one head's query.
    folded = query.squeeze(2).unflatten(1, (key.shape[1], -1))
    found = scaled_dot_product_attention(
        folded, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return found.flatten(1, 2).unsqueeze(1), None


AttentionInterface.register(SHARED_HEADS, shared_heads)
AttentionMaskInterface.register(SHARED_HEADS, sdpa_mask)


@contextmanager
def reading_shared_heads(model: Any) -> Iterator[None]:
    """Within it, the language model of one with ``sdpa`` decodes by ``shared_heads``."""
    text = model.config.get_text_config(decoder=True)
    before = text._attn_implementation
    text._attn_implementation = SHARED_HEADS if before == "sdpa" else before
    try:
        yield
    finally:
        text._attn_implementation = before
