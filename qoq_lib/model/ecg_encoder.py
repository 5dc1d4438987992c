"""The ECG encoder (ECG-JEPA's architecture, arXiv 2410.08559) and its projector."""

import torch
from torch import nn
from torch.nn import functional

from .configuration_qoq import EcgConfig


def sincos_positions(lead: torch.Tensor, time: torch.Tensor, width: int) -> torch.Tensor:
    """2-D sine-cosine positions, patches x width: the first half codes the time, then the lead."""
    frequency = 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = [place.unsqueeze(1) * frequency for place in (time, lead)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)


class EcgBlock(nn.Module):
    """A pre-norm transformer block with masked self-attention."""

    def __init__(self, config: EcgConfig) -> None:
        super().__init__()
        width, self.num_heads = config.hidden_size, config.num_heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, int(width * config.mlp_ratio))
        self.fc2 = nn.Linear(int(width * config.mlp_ratio), width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(n, patches, width) -> the same shape; ``mask`` is (n, 1, patches, patches)."""
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class EcgEncoder(nn.Module):
    """Patches of each lead -> transformer with cross-pattern attention -> ``out_tokens`` vectors.

    A time patch that is zero in every lead is padding (``prepare_ecg`` pads with zeros, and no lead
    of its is constant): nobody attends to it and no pooling counts it.
    """

    positions: torch.Tensor
    mask: torch.Tensor

    def __init__(self, config: EcgConfig) -> None:
        super().__init__()
        self.config = config
        width, patches = config.hidden_size, config.leads * (config.samples // config.patch_size)
        self.embed = nn.Linear(config.patch_size, width)
        self.blocks = nn.ModuleList(EcgBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", torch.empty(patches, width), persistent=False)
        self.register_buffer("mask", torch.empty(patches, patches).bool(), persistent=False)
        self.fill_buffers()

    def fill_buffers(self) -> None:
        """Compute positions and attention mask, in place; neither is a trained weight."""
        times = self.config.samples // self.config.patch_size
        lead = torch.arange(self.config.leads).repeat_interleave(times)
        time = torch.arange(times).repeat(self.config.leads)
        self.positions.copy_(sincos_positions(lead, time, self.config.hidden_size))
        self.mask.copy_((lead[:, None] == lead) | (time[:, None] == time))  # same lead or time

    def encode(self, ecg_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, leads, samples) -> (n, leads, times, width), and (n, times): true = no padding."""
        patches = ecg_values.unflatten(2, (-1, self.config.patch_size))
        known = patches.ne(0).any(dim=3).any(dim=1)
        known[:, 0] = True  # so that every patch has one to attend to
        mask = self.mask & known.repeat(1, self.config.leads)[:, None, None]
        x = self.embed(patches.flatten(1, 2))
        for block in self.blocks:
            x = block(x + self.positions, mask)  # ECG-JEPA adds the positions before every block
        return self.norm(x).unflatten(1, patches.shape[1:3]), known

    def forward(self, ecg_values: torch.Tensor) -> torch.Tensor:
        """(n, leads, samples) -> (n, ``out_tokens``, width): see ``EcgConfig`` for their order."""
        features, known = self.encode(ecg_values)
        features = features * known[:, None, :, None]
        if self.config.out_tokens == known.shape[1]:
            return features.mean(dim=1)
        by_lead = features.sum(dim=2) / known.sum(dim=1)[:, None, None]
        return by_lead if self.config.out_tokens > 1 else by_lead.mean(dim=1, keepdim=True)


class EcgProjector(nn.Module):
    """LayerNorm and a two-layer MLP from the encoder's width to the language model's."""

    def __init__(self, config: EcgConfig, out_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.fc1 = nn.Linear(config.hidden_size, out_width)
        self.fc2 = nn.Linear(out_width, out_width)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(n, ``out_tokens``, width) -> (n, ``out_tokens``, out_width)."""
        return self.fc2(functional.gelu(self.fc1(self.norm(pooled))))
