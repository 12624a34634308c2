"""Keeps the own encoder and adds what a language model knows beside it (ours).

The own encoder's states are the queries that attend to the language model's features; what they
bring is added through a layer that starts at zero. So before the first step the vision model reads
exactly what it was trained to read, and a bridge begins as good as the model that it joins. A gate
for each token, open at first, lets the language model overrule the own encoder where that misreads.
Length, mask and pooled vector stay the own encoder's.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from lavi_bridge.adapters.base import ADAPTERS, Adapter
from lavi_bridge.adapters.blocks import Block
from lavi_bridge.text import Text


@ADAPTERS.register("fusion")
class FusionAdapter(Adapter):
    """Adds to the own encoder's states; needs an image model's folder with its encoder."""

    kind: ClassVar[str] = "fusion"
    depth: ClassVar[int] = 2
    """Layers."""
    pools: ClassVar[bool] = False
    needs_own: ClassVar[bool] = True
    per_token: ClassVar[bool] = False
    per_own_token: ClassVar[bool] = True
    adds: ClassVar[bool] = True

    def build(self) -> None:
        self.enter = nn.Sequential(
            nn.LayerNorm(self.width_in), nn.Linear(self.width_in, self.inner)
        )
        self.ask = nn.Sequential(
            nn.LayerNorm(self.width_out), nn.Linear(self.width_out, self.inner)
        )
        self.layers = nn.ModuleList(
            Block(self.inner, dropout=self.dropout, crosses=True) for _ in range(self.depth)
        )
        self.norm = nn.LayerNorm(self.inner)
        self.add, self.gate = nn.Linear(self.inner, self.width_out), nn.Linear(self.inner, 1)
        for layer in (self.add, self.gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @classmethod
    def usual_inner(cls, width_in: int, width_out: int) -> int:
        return min(width_out, 1024)

    def forward(  # type: ignore[override]
        self, hidden: Tensor, own: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Features (batch, tokens, width_in) and own states (batch, own tokens, width_out) -> own
        states and what is added, float32."""
        own = own.float()
        if not self.strength:
            return own
        keys = self.enter(hidden.float())
        x = self.ask(own)
        for layer in self.layers:
            x = layer(x, keys, mask)
        x = self.norm(x)
        closed, added = torch.tanh(self.gate(x)), self.add(x)
        if self.strength != 1:
            closed, added = self.strength * closed, self.strength * added
        return own * (1 - closed) + added

    def read(self, features: Text) -> Text:
        own = features.own
        assert own is not None  # a bridge with this adapter has read it
        pooled = None if own.pooled is None else own.pooled.float()
        hidden = self(features.hidden, own.hidden, features.mask)
        return replace(features, hidden=hidden, mask=own.mask, pooled=pooled, own=None)
