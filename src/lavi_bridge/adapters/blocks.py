"""Transformer blocks that several adapters are made of: norm, attention, norm, feed-forward."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

HEAD = 64
"""Width of a head of attention, where the width inside is a multiple of it."""


class Attention(nn.Module):
    """Attention of queries (batch, tokens, width) to keys (batch, others, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = heads(width)
        self.to_q, self.to_out = nn.Linear(width, width), nn.Linear(width, width)
        self.to_k = nn.Linear(width, width, bias=False)  # one would change nothing
        self.to_v = nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; `mask` (batch, others) is 0 where a key is not read."""
        q, k, v = (
            projection(given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, given in ((self.to_q, x), (self.to_k, keys), (self.to_v, keys))
        )
        read = None if mask is None else mask.bool()[:, None, None]
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=read)
        return self.to_out(found.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention to keys, or to the tokens themselves, then a feed-forward; both with residuals.

    Args:
        crosses: it attends to keys from elsewhere.
        timed: its norms are scaled and shifted by an embedding of time (adaptive layer norms, as
            in ELLA, arXiv 2403.05135); at first not at all.
    """

    def __init__(
        self, width: int, *, dropout: float = 0.0, crosses: bool = False, timed: bool = False
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_keys = nn.LayerNorm(width) if crosses else None
        self.attention = Attention(width)
        self.norm_inner = nn.LayerNorm(width)
        self.inner = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(width, 4 * width) if timed else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Tensor,
        keys: Tensor | None = None,
        mask: Tensor | None = None,
        time: Tensor | None = None,
    ) -> Tensor:
        """(batch, tokens, width) -> the same shape.

        Args:
            keys: what is attended to, where the block crosses; the tokens themselves elsewhere.
            mask: (batch, keys), 0 where a key is not read.
            time: embedding (batch, width), for timed blocks.
        """
        normed, scale = self.norm(x), None
        if self.modulation is not None and time is not None:
            shift_a, scale_a, shift, scale = self.modulation(time).unsqueeze(1).chunk(4, -1)
            normed = normed * (1 + scale_a) + shift_a
        read = normed
        if self.norm_keys is not None and keys is not None:
            read = self.norm_keys(keys)
        x = x + self.attention(normed, read, mask)
        normed = self.norm_inner(x)
        if scale is not None:
            normed = normed * (1 + scale) + shift
        return x + self.inner(normed)


class Time(nn.Module):
    """Embeds timesteps (batch,), 0 to 1000, as vectors (batch, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.net = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timesteps: Tensor) -> Tensor:
        half = self.width // 2
        places = torch.arange(half, device=timesteps.device)
        rates = torch.exp(-math.log(10_000) * places / half)
        angles = timesteps.float().unsqueeze(1) * rates
        waves = torch.cat([angles.cos(), angles.sin()], 1)
        return nn.functional.silu(self.net(nn.functional.pad(waves, (0, self.width - 2 * half))))


def heads(width: int) -> int:
    """How many heads attention of a width has: of 64, or what divides it."""
    count = max(1, width // HEAD)
    return next(n for n in range(count, 0, -1) if width % n == 0)
