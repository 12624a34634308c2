"""A resampler that depends on the timestep (ELLA's connector, arXiv 2403.05135).

What a picture needs of a prompt changes while it is drawn: its layout first, details at the end.
"""

from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from lavi_bridge.adapters.base import ADAPTERS
from lavi_bridge.adapters.blocks import Time
from lavi_bridge.adapters.resampler import ResamplerAdapter
from lavi_bridge.text import Text


@ADAPTERS.register("timed")
class TimedAdapter(ResamplerAdapter):
    """Reads the language model's features anew at every step."""

    kind: ClassVar[str] = "timed"
    timed: ClassVar[bool] = True

    def build(self) -> None:
        super().build()
        self.time = Time(self.inner)

    def forward(
        self, hidden: Tensor, mask: Tensor | None = None, timesteps: Tensor | None = None
    ) -> Tensor:
        """Map features as they are read at these timesteps (batch,)."""
        return super().forward(hidden, mask, None if timesteps is None else self.time(timesteps))

    def prepare(self, features: Text) -> Text:
        """Leave the features of one layer as they are; `at` reads them."""
        return self.mixing(features)

    def at(self, text: Text, timesteps: Tensor) -> Text:
        """Features as they are read at these timesteps (batch,)."""

        def of(adapter: "TimedAdapter") -> Text:
            return adapter.all_read(adapter(text.hidden, text.mask, timesteps), text)

        read = of(self)
        return replace(
            text,
            hidden=read.hidden,
            mask=read.mask,
            pooled=self.pooled_of(text),
            more=tuple(of(one) for one in self.others()),
        )
