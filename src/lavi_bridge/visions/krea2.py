"""Krea 2: reads twelve inner layers of a language model, side by side; a video autoencoder."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions import stock
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision
from lavi_bridge.visions.patches import pack, places, unpack


@VISIONS.register("Krea2Pipeline")
class Krea2(Vision):
    """Text is masked. The adapter gives all layers at once: 12 of 2560 channels."""

    backbone_class: ClassVar[str] = "Krea2Transformer2DModel"
    default_tokens: ClassVar[int] = 512
    default_side: ClassVar[int] = 128
    padding: ClassVar[Padding] = "masked"
    lora_targets: ClassVar[str] = r".*attn\.(to_q|to_k|to_v|to_out\.0)"
    even_sigmas: ClassVar[bool] = True
    packs: ClassVar[int] = 2
    own_fields: ClassVar[Fields] = ("hidden", "mask")
    pipeline_class: ClassVar[str] = "Krea2Pipeline"

    @property
    def text_width(self) -> int:
        config = self.backbone.config
        return int(config.num_text_layers * config.text_hidden_dim)

    def mu(self, height: int, width: int, steps: int | None = None) -> float | None:
        """The same for all sizes where it was distilled for a few steps."""
        found = super().mu(height, width)
        return 1.15 if found is not None and self.few_steps else found

    def reads(self, text: Text) -> Text:
        layers = self.backbone.config.num_text_layers
        mask = None if text.mask is None else text.mask.bool()
        return replace(text, hidden=text.hidden.unflatten(-1, (layers, -1)), mask=mask)

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        height, width = x_t.shape[-2:]
        words = torch.zeros(text.hidden.shape[1], 3, device=x_t.device)
        tokens = self.backbone(
            pack(x_t),
            timestep=timesteps.to(x_t.dtype) / 1000,
            encoder_hidden_states=text.hidden,
            position_ids=torch.cat([words, places(height // 2, width // 2, words)]),
            encoder_attention_mask=text.mask,
        ).sample
        return unpack(tokens, height, width)

    def pipeline(self, scheduler: Any) -> Any:
        """Told whether it was distilled: its time shift depends on it."""
        return stock.pipeline(self, scheduler, {"is_distilled": self.few_steps})

    def pipeline_guidance(self, guidance: float) -> dict[str, float]:
        """Its pipeline counts from the answer with the prompt, where 0 is without guidance."""
        return {"guidance_scale": guidance - 1}
