"""The paper's adapter (section 3.2; `modules/adapters.py` of the published code).

LayerNorm, GEGLU feed-forward, LayerNorm, GEGLU feed-forward; token by token, without residual
and without a norm at the end. The middle width is halfway between the two models'.
"""

from typing import ClassVar

from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from lavi_bridge.adapters.base import ADAPTERS, Adapter


@ADAPTERS.register("feedforward")
class FeedForwardAdapter(Adapter):
    """Parameter names are those of the published checkpoints."""

    kind: ClassVar[str] = "feedforward"

    def build(self) -> None:
        middle = self.inner
        self.norm1 = nn.LayerNorm(self.width_in)
        self.ff1 = FeedForward(
            self.width_in, middle, mult=4, activation_fn="geglu", dropout=self.dropout
        )
        self.norm2 = nn.LayerNorm(middle)
        self.ff2 = FeedForward(
            middle, self.width_out, mult=4, activation_fn="geglu", dropout=self.dropout
        )

    @property
    def last(self) -> nn.Linear | None:
        layer = self.ff2.net[2]
        assert isinstance(layer, nn.Linear)
        return layer

    @classmethod
    def usual_inner(cls, width_in: int, width_out: int) -> int:
        return (width_in + width_out) // 2

    def forward(self, hidden: Tensor) -> Tensor:
        return self.ff2(self.norm2(self.ff1(self.norm1(hidden.float()))))
