"""A few bidirectional layers over the language model's tokens, then a linear layer.

A causal model's states have not read what comes after them; these layers have (as the refiners of
Lumina-Image 2.0, arXiv 2503.21758, and of SANA's kin).
"""

from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from lavi_bridge.adapters.base import ADAPTERS, Adapter
from lavi_bridge.adapters.blocks import Block
from lavi_bridge.text import Text


@ADAPTERS.register("refiner")
class RefinerAdapter(Adapter):
    """Keeps one feature a token, and its mask."""

    kind: ClassVar[str] = "refiner"
    depth: ClassVar[int] = 2
    """Layers."""

    def build(self) -> None:
        self.enter = nn.Sequential(
            nn.LayerNorm(self.width_in), nn.Linear(self.width_in, self.inner)
        )
        self.layers = nn.ModuleList(
            Block(self.inner, dropout=self.dropout) for _ in range(self.depth)
        )
        self.leave = nn.Sequential(nn.LayerNorm(self.inner), nn.Linear(self.inner, self.width_out))

    @property
    def last(self) -> nn.Linear:
        layer = self.leave[1]
        assert isinstance(layer, nn.Linear)
        return layer

    @classmethod
    def usual_inner(cls, width_in: int, width_out: int) -> int:
        return min(width_out, 1024)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.enter(hidden.float())
        for layer in self.layers:
            x = layer(x, mask=mask)
        return self.leave(x)

    def tokens_of(self, features: Text) -> Text:
        return replace(features, hidden=self(features.hidden, features.mask))
