"""One linear layer: the paper's ablation "without adapter" (table 3), which only fits the width."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from lavi_bridge.adapters.base import ADAPTERS, Adapter


@ADAPTERS.register("linear")
class LinearAdapter(Adapter):
    kind: ClassVar[str] = "linear"

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        dropout: float = 0.0,
        pooled: int = 0,
        more: Sequence[int] = (),
        inner: int | None = None,
    ) -> None:
        super().__init__(
            width_in, width_out, dropout=dropout, pooled=pooled, more=more, inner=inner
        )
        self.proj = nn.Linear(width_in, width_out)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.proj(hidden.float())
