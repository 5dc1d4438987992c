"""The ECG encoder (ECG-JEPA's architecture, arXiv 2410.08559) and its projector."""

import torch
from torch import nn
from torch.nn import functional

from .configuration_qoq import EcgConfig


def sincos_positions(leads: int, times: int, width: int) -> torch.Tensor:
    """2-D sine-cosine positions, (leads * times) x width: half codes the lead, half the time."""
    frequency = 1.0 / 10_000 ** (torch.arange(width // 4) / (width / 4))

    def encode(count: int) -> torch.Tensor:
        angle = torch.arange(count).unsqueeze(1) * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    by_lead = encode(leads).repeat_interleave(times, dim=0)
    by_time = encode(times).repeat(leads, 1)
    return torch.cat([by_lead, by_time], dim=1)


def cross_pattern_mask(leads: int, times: int) -> torch.Tensor:
    """Who may attend to whom, (leads * times) square: same lead or same time (CroPA)."""
    lead = torch.arange(leads).repeat_interleave(times)
    time = torch.arange(times).repeat(leads)
    return (lead[:, None] == lead) | (time[:, None] == time)


class EcgBlock(nn.Module):
    """A pre-norm transformer block with masked self-attention."""

    def __init__(self, config: EcgConfig) -> None:
        super().__init__()
        width, hidden = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
        self.num_heads = config.num_heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(n, tokens, width) -> the same shape; ``mask`` is (tokens, tokens), true = may attend."""
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class EcgEncoder(nn.Module):
    """Patches of each lead -> transformer with cross-pattern attention -> one vector a patch."""

    positions: torch.Tensor
    mask: torch.Tensor

    def __init__(self, config: EcgConfig) -> None:
        super().__init__()
        self.config = config
        tokens = config.leads * (config.samples // config.patch_size)
        self.embed = nn.Linear(config.patch_size, config.hidden_size)
        self.blocks = nn.ModuleList(EcgBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.register_buffer("positions", torch.empty(tokens, config.hidden_size), persistent=False)
        mask = torch.empty(tokens, tokens, dtype=torch.bool)
        self.register_buffer("mask", mask, persistent=False)
        self.fill_buffers()

    def fill_buffers(self) -> None:
        """Compute positions and attention mask, in place; neither is a trained weight."""
        leads, times = self.config.leads, self.config.samples // self.config.patch_size
        self.positions.copy_(sincos_positions(leads, times, self.config.hidden_size))
        self.mask.copy_(cross_pattern_mask(leads, times))

    def forward(self, ecg_values: torch.Tensor) -> torch.Tensor:
        """(n, leads, samples) -> (n, leads, patches, width)."""
        count, leads, _ = ecg_values.shape
        patches = ecg_values.unflatten(2, (-1, self.config.patch_size)).flatten(1, 2)
        x = self.embed(patches) + self.positions
        for block in self.blocks:
            x = block(x, self.mask)
        return self.norm(x).unflatten(1, (leads, -1))


class EcgProjector(nn.Module):
    """LayerNorm and a two-layer MLP from the encoder's width to the language model's."""

    def __init__(self, config: EcgConfig, out_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.fc1 = nn.Linear(config.hidden_size, out_width)
        self.fc2 = nn.Linear(out_width, out_width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, leads, patches, width) -> (n, leads, out_width): one token a lead, mean over time."""
        pooled = features.mean(dim=2)
        return self.fc2(functional.gelu(self.fc1(self.norm(pooled))))
