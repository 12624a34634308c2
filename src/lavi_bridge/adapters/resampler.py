"""Learned queries that gather a prompt into a few tokens (Perceiver, arXiv 2103.03206)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lavi_bridge.adapters.base import ADAPTERS, Adapter
from lavi_bridge.adapters.blocks import Block
from lavi_bridge.text import Text


@ADAPTERS.register("resampler")
class ResamplerAdapter(Adapter):
    """Gives 64 tokens, whatever the prompt's length; all of them are read."""

    kind: ClassVar[str] = "resampler"
    depth: ClassVar[int] = 4
    """Layers."""
    many: ClassVar[int] = 64
    """Queries, and tokens that it gives."""
    per_token: ClassVar[bool] = False

    def build(self) -> None:
        self.queries = nn.Parameter(torch.randn(self.many, self.inner) / self.inner**0.5)
        self.enter = nn.Sequential(
            nn.LayerNorm(self.width_in), nn.Linear(self.width_in, self.inner)
        )
        self.layers = nn.ModuleList(
            Block(self.inner, dropout=self.dropout, crosses=True, timed=self.timed)
            for _ in range(self.depth)
        )
        self.leave = nn.Sequential(nn.LayerNorm(self.inner), nn.Linear(self.inner, self.width_out))

    @classmethod
    def usual_inner(cls, width_in: int, width_out: int) -> int:
        return min(width_out, 1024)

    def forward(
        self, hidden: Tensor, mask: Tensor | None = None, time: Tensor | None = None
    ) -> Tensor:
        keys = self.enter(hidden.float())
        x = self.queries.expand(len(hidden), -1, -1)
        for layer in self.layers:
            x = layer(x, keys, mask, time)
        return self.leave(x)

    def tokens_of(self, features: Text) -> Text:
        return self.all_read(self(features.hidden, features.mask), features)

    @staticmethod
    def all_read(hidden: Tensor, features: Text) -> Text:
        """Tokens of which none is padding, with a mask where the features have one."""
        ones = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        return Text(hidden, None if features.mask is None else ones)
