"""Ovis-Image: FLUX's layout without a pooled vector; text positions run along both axes."""

from typing import ClassVar

import torch
from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding
from lavi_bridge.visions.flux import Flux
from lavi_bridge.visions.patches import diagonal, pack, places, unpack


@VISIONS.register("OvisImagePipeline")
class OvisImage(Flux):
    """Padding is masked in the language model and zero here."""

    backbone_class: ClassVar[str] = "OvisImageTransformer2DModel"
    pooled_config: ClassVar[str | None] = None
    default_tokens: ClassVar[int] = 256
    max_tokens: ClassVar[int | None] = None
    padding: ClassVar[Padding] = "zeroed"
    own_fields: ClassVar[Fields] = ("hidden", "null_hidden")
    own_tokenizer: ClassVar[str | None] = None
    pipeline_class: ClassVar[str] = "OvisImagePipeline"
    modular_class: ClassVar[str | None] = None

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        height, width = x_t.shape[-2:]
        words = torch.arange(text.hidden.shape[1], device=x_t.device)
        tokens = self.backbone(
            pack(x_t),
            timestep=timesteps.to(x_t.dtype) / 1000,
            encoder_hidden_states=text.hidden,
            txt_ids=diagonal(words).to(x_t.dtype),
            img_ids=places(height // 2, width // 2, x_t),
        ).sample
        return unpack(tokens, height, width)

    def pipeline_guidance(self, guidance: float) -> dict[str, float]:
        return {"guidance_scale": guidance}
