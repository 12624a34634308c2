"""PixArt-α and PixArt-Σ: the paper's Transformer(PixArt).

Text is masked, in the transformer and in the language model. The published checkpoint calls its
transformer by the older name `Transformer2DModel`; the weights are the same.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Vision


@VISIONS.register("PixArtAlphaPipeline")
class PixArtAlpha(Vision):
    """LoRA on the attentions (the published list names GEGLU too, which PixArt does not have)."""

    backbone_class: ClassVar[str] = "PixArtTransformer2DModel"
    default_tokens: ClassVar[int] = 120
    masks: ClassVar[bool] = True
    lora_targets: ClassVar[str] = r".*attn\d\.(to_q|to_k|to_v|to_out\.0)"
    pipeline_class: ClassVar[str] = "PixArtAlphaPipeline"

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return self.backbone(
            x_t,
            encoder_hidden_states=text.hidden,
            encoder_attention_mask=text.mask,
            timestep=timesteps,
            added_cond_kwargs=self._size(x_t),
        ).sample

    def _size(self, x_t: Tensor) -> dict[str, Any]:
        """The 1024-px checkpoints are told the image's size; the smaller ones are not."""
        if not self.backbone.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * self.scale for side in x_t.shape[-2:])
        # filled on the device: numbers from the host would be copied, and waited for
        sides = [x_t.new_full((len(x_t), 1), side) for side in (height, width)]
        resolution, ratio = torch.cat(sides, 1), x_t.new_full((len(x_t), 1), height / width)
        return {"resolution": resolution, "aspect_ratio": ratio}


@VISIONS.register("PixArtSigmaPipeline")
class PixArtSigma(PixArtAlpha):
    """Trained on longer captions; never told the image's size."""

    default_tokens: ClassVar[int] = 300
    pipeline_class: ClassVar[str] = "PixArtSigmaPipeline"
