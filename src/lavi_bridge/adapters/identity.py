"""No adapter at all: the vision model's own text encoder already speaks its language."""

from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from lavi_bridge.adapters.base import ADAPTERS, Adapter
from lavi_bridge.errors import BridgeError
from lavi_bridge.text import Text


@ADAPTERS.register("identity")
class IdentityAdapter(Adapter):
    """Passes the features through; used by `Bridge.own`, the baseline of every comparison."""

    kind: ClassVar[str] = "identity"
    pools: ClassVar[bool] = False

    def build(self) -> None:
        if self.width_in != self.width_out:
            raise BridgeError(
                f"the identity adapter cannot map width {self.width_in} to {self.width_out}"
            )

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.float()

    def read(self, features: Text) -> Text:
        """Pass all on: a pooled vector, where there is one, is the own encoders', too."""
        pooled = None if features.pooled is None else features.pooled.float()
        return replace(features, hidden=self(features.hidden), pooled=pooled)
