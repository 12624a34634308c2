"""Bria 3: FLUX's layout without a pooled vector; T5's states, then zeros; times up to 1000."""

from typing import ClassVar

import numpy as np
from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding
from lavi_bridge.visions.flux import Flux
from lavi_bridge.visions.patches import pack, places, unpack


@VISIONS.register("BriaPipeline")
class Bria(Flux):
    """Padding is zero, and so is its null prompt."""

    backbone_class: ClassVar[str] = "BriaTransformer2DModel"
    pooled_config: ClassVar[str | None] = None
    own_fields: ClassVar[Fields] = ("hidden", "null_hidden")
    own_tokenizer: ClassVar[str | None] = None
    default_tokens: ClassVar[int] = 128
    max_tokens: ClassVar[int | None] = None
    padding: ClassVar[Padding] = "zeroed"
    pipeline_class: ClassVar[str] = "BriaPipeline"
    modular_class: ClassVar[str | None] = None

    def sigmas(self, steps: int) -> list[float]:
        """Where the shift is one for all sizes: whole times from 1000 to 1."""
        if self.process.config.get("use_dynamic_shifting"):
            return super().sigmas(steps)
        return [(1000 - int(passed)) / 1000 for passed in np.linspace(0, 999, steps)]

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        height, width = x_t.shape[-2:]
        tokens = self.backbone(
            pack(x_t),
            timestep=timesteps,
            encoder_hidden_states=text.hidden,
            txt_ids=x_t.new_zeros(text.hidden.shape[1], 3),
            img_ids=places(height // 2, width // 2, x_t),
        ).sample
        return unpack(tokens, height, width)

    def pipeline_guidance(self, guidance: float) -> dict[str, float]:
        return {"guidance_scale": guidance}
