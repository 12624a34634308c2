"""One linear layer: the paper's ablation "without adapter" (table 3), which only fits the width."""

from typing import ClassVar

from torch import Tensor, nn

from lavi_bridge.adapters.base import ADAPTERS, Adapter


@ADAPTERS.register("linear")
class LinearAdapter(Adapter):
    kind: ClassVar[str] = "linear"
    linear: ClassVar[bool] = True

    def build(self) -> None:
        self.proj = nn.Linear(self.width_in, self.width_out)

    @property
    def last(self) -> nn.Linear:
        return self.proj

    def forward(self, hidden: Tensor) -> Tensor:
        return self.proj(hidden.float())
