"""The rollouts of one question share its prompt: read once, not once per rollout.

A group of G rollouts differs only behind the prompt, yet a plain batch reads images, ECGs and
prompt tokens G times, in generation and again in the loss. Here generation copies the key-value
cache of one prefill G times (``decoding``), and a log-probability pass lays a question's rollouts
side by side behind one prompt, ``[prompt | rollout 1 | rollout 2 | ...]``, under a mask that hides
them from each other; positions go on from the prompt's end in each of them. The numbers are those
of separate rows up to rounding.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import pad
from trl.trainer.utils import split_tensor_dict

PER_IMAGE = ("pixel_values", "image_grid_thw")


@dataclass(frozen=True, eq=False)
class Prompt:
    """One question as the model reads it; rollouts of the question hold the same object.

    Attributes:
        input_ids: (length,) token ids, no padding.
        mm_token_type_ids: (length,), 1 on image placeholders.
        media: ``pixel_values`` and ``image_grid_thw`` of its images and ``ecg_values`` of its ECGs,
            each only where there is one.
        images: the pictures themselves, for engines that take no tensors.
    """

    input_ids: torch.Tensor
    mm_token_type_ids: torch.Tensor
    media: dict[str, torch.Tensor]
    images: list[Any]


def read_prompts(
    processor: Any, conversations: Sequence[list], keys: Sequence[Hashable]
) -> list[Prompt]:
    """One ``Prompt`` per conversation; conversations of one key are one question, read once."""
    distinct = dict(zip(keys, conversations, strict=True))
    prompts = {key: _read_prompt(processor, chat) for key, chat in distinct.items()}
    return [prompts[key] for key in keys]


def _read_prompt(processor: Any, conversation: list) -> Prompt:
    features = processor.apply_chat_template(
        [conversation],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    parts = [
        part
        for turn in conversation
        if isinstance(turn["content"], list)
        for part in turn["content"]
    ]
    return Prompt(
        input_ids=features["input_ids"][0],
        mm_token_type_ids=features["mm_token_type_ids"][0],
        media={name: features[name] for name in (*PER_IMAGE, "ecg_values") if name in features},
        images=[part["image"] for part in parts if part["type"] == "image"],
    )


def collate(prompts: Sequence[Prompt], device: torch.device, pad_id: int) -> dict[str, Any]:
    """Left-padded inputs of the model for these prompts, on ``device``."""
    width = max(len(prompt.input_ids) for prompt in prompts)
    batch = {
        "input_ids": left_padded([prompt.input_ids for prompt in prompts], width, pad_id),
        "attention_mask": left_padded([torch.ones_like(p.input_ids) for p in prompts], width, 0),
        "mm_token_type_ids": left_padded([p.mm_token_type_ids for p in prompts], width, 0),
    }
    for name in (*PER_IMAGE, "ecg_values"):
        held = [prompt.media[name] for prompt in prompts if name in prompt.media]
        if held:
            batch[name] = torch.cat(held)
    if "ecg_values" in batch:
        batch["ecg_counts"] = torch.tensor([len(p.media.get("ecg_values", ())) for p in prompts])
    return {name: tensor.to(device) for name, tensor in batch.items()}


def left_padded(rows: Sequence[torch.Tensor], width: int, value: int) -> torch.Tensor:
    """Rows x ``width``, each row at the right end."""
    return torch.stack([pad(row, (width - len(row), 0), value=value) for row in rows])


def positions(backbone: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """M-RoPE positions of collated prompts, 3 x prompts x tokens."""
    return backbone.get_rope_index(
        batch["input_ids"],
        mm_token_type_ids=batch["mm_token_type_ids"],
        image_grid_thw=batch.get("image_grid_thw"),
        attention_mask=batch["attention_mask"],
    )[0]


class SharedPrompts:
    """A model whose rows share prompts, in the place where TRL computes log-probabilities.

    TRL hands over rows of ``[prompt | completion]``, chunk by chunk in order; the prompts are known
    here as objects, so each is read once and the completions are laid out behind it.
    """

    def __init__(self, model: Any, backbone: Any, prompts: Sequence[Prompt], pad_id: int) -> None:
        self.model, self.backbone, self.pad_id = model, backbone, pad_id
        self.prompts, self.done = prompts, 0

    def __call__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        **kwargs: Any,
    ) -> SimpleNamespace:
        """``.logits``, rows x ``logits_to_keep`` x vocabulary: as the model's for plain rows."""
        rows = self.prompts[self.done : self.done + len(input_ids)]
        self.done += len(input_ids)
        length = logits_to_keep - 1  # TRL asks for one position before the completion as well
        distinct = list(dict.fromkeys(rows))
        batch = collate(distinct, input_ids.device, self.pad_id)
        layout = Layout.of([distinct.index(row) for row in rows], len(distinct))
        place = positions(self.backbone, batch)
        packed = batch | {
            "input_ids": layout.behind(batch["input_ids"], input_ids[:, -length:], self.pad_id),
            "mm_token_type_ids": layout.behind(
                batch["mm_token_type_ids"], torch.zeros_like(input_ids[:, -length:]), 0
            ),
            "attention_mask": layout.mask(batch["attention_mask"], attention_mask[:, -length:]),
            "position_ids": layout.positions(place, length),
        }
        width = batch["input_ids"].shape[1]
        kept = torch.arange(width - 1, packed["input_ids"].shape[1], device=input_ids.device)
        logits = self.model(**packed, logits_to_keep=kept, **kwargs).logits
        return SimpleNamespace(logits=layout.rows_of(logits, length))


@dataclass(frozen=True)
class Layout:
    """Which prompt and which slot behind it each row has.

    Attributes:
        owner: rows, index of the row's prompt.
        slot: rows, its place behind the prompt.
        prompts: number of prompts.
        slots: most rows of one prompt.
    """

    owner: torch.Tensor
    slot: torch.Tensor
    prompts: int
    slots: int

    @classmethod
    def of(cls, owners: Sequence[int], prompts: int) -> "Layout":
        """Rows take slots in the order in which they come."""
        taken = [0] * prompts
        slots = []
        for owner in owners:
            slots.append(taken[owner])
            taken[owner] += 1
        return cls(torch.tensor(owners), torch.tensor(slots), prompts, max(taken))

    def _spread(self, rows: torch.Tensor, empty: int) -> torch.Tensor:
        """Rows x length -> prompts x (slots * length); slots without a row hold ``empty``."""
        spread = rows.new_full((self.prompts, self.slots, rows.shape[1]), empty)
        spread[self.owner, self.slot] = rows
        return spread.flatten(1)

    def behind(self, heads: torch.Tensor, rows: torch.Tensor, empty: int) -> torch.Tensor:
        """``[head | row | row | ...]`` for every prompt."""
        return torch.cat([heads, self._spread(rows, empty)], dim=1)

    def mask(self, heads: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """True where a token may look: prompts x 1 x length x length.

        A token sees its prompt and its own rollout up to itself. Padding sees itself alone, so that
        no softmax runs over nothing.
        """
        width, length = heads.shape[1], rows.shape[1]
        real = self.behind(heads, rows, 0).bool()
        block = torch.arange(self.slots, device=heads.device).repeat_interleave(length) + 1
        block = torch.cat([block.new_zeros(width), block])
        total = len(block)
        order = torch.ones(total, total, dtype=torch.bool, device=heads.device).tril()
        kin = (block[None, :] == block[:, None]) | (block[None, :] == 0)
        seen = (order & kin)[None] & real[:, None, :]
        seen |= torch.eye(total, dtype=torch.bool, device=heads.device)
        return seen.unsqueeze(1)

    def positions(self, heads: torch.Tensor, length: int) -> torch.Tensor:
        """Every rollout goes on from its prompt's last position: 3 x prompts x length."""
        start = heads.amax(dim=(0, 2)) + 1
        steps = torch.arange(length, device=heads.device).repeat(self.slots)
        tail = (start[:, None] + steps).expand(3, -1, -1)
        return torch.cat([heads, tail], dim=2)

    def rows_of(self, logits: torch.Tensor, length: int) -> torch.Tensor:
        """Logits behind each prompt's last token -> rows x (1 + length) x vocabulary."""
        first = logits[self.owner, :1]
        rest = logits[:, 1:].unflatten(1, (self.slots, length))[self.owner, self.slot]
        return torch.cat([first, rest], dim=1)


def backbone_of(model: Any) -> Any:
    """The ``QoQModel`` inside a model that may carry adapters."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model


def until_end(tokens: list[int], end_ids: list[int]) -> list[int]:
    """A completion up to and with its first end token."""
    for place, token in enumerate(tokens):
        if token in end_ids:
            return tokens[: place + 1]
    return tokens


def in_order(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Undo TRL's shuffle of a generation batch that it has already split."""
    order = torch.argsort(torch.cat([chunk["row"] for chunk in chunks]))

    def ordered(values: list[Any]) -> Any:
        if isinstance(values[0], list):
            rows = [row for part in values for row in part]
            return [rows[index] for index in order]
        if values[0] is None or values[0].ndim == 0:
            return values[0]
        return torch.cat(values)[order]

    whole = {name: ordered([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return split_tensor_dict(whole, len(chunks))
