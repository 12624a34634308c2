"""Z-Image: lists of images and of captions of any length; time from noise (0) to image (1)."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision


@VISIONS.register("ZImagePipeline")
class ZImage(Vision):
    """Text is masked: padding is left out."""

    backbone_class: ClassVar[str] = "ZImageTransformer2DModel"
    text_config: ClassVar[str] = "cap_feat_dim"
    default_tokens: ClassVar[int] = 512
    default_side: ClassVar[int] = 128
    padding: ClassVar[Padding] = "masked"
    lora_targets: ClassVar[str] = r".*attention\.(to_q|to_k|to_v|to_out\.0)"
    even_sigmas: ClassVar[bool] = True
    own_fields: ClassVar[Fields] = ("hidden", "null_hidden")
    pipeline_class: ClassVar[str] = "ZImagePipeline"

    @property
    def max_tokens(self) -> int:  # type: ignore[override]
        """As many as have positions; captions are padded to multiples of 32."""
        return (int(self.backbone.config.axes_lens[0]) - 2) // 32 * 32

    def _divisor(self) -> int:
        return int(self.backbone.config.all_patch_size[0])

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        images = list(x_t.unsqueeze(2))
        answer = self.backbone(images, 1 - timesteps.float() / 1000, captions(text)).sample
        return -torch.stack(answer).squeeze(2)

    def pipeline_text(self, text: Text, null: Text) -> dict[str, Any]:
        return {"prompt_embeds": captions(text), "negative_prompt_embeds": captions(null)}

    def pipeline_guidance(self, guidance: float) -> dict[str, float]:
        """Its pipeline counts from the answer with the prompt, where 0 is without guidance."""
        return {"guidance_scale": guidance - 1}


def captions(text: Text) -> list[Tensor]:
    """Each caption's features, without padding."""
    assert text.mask is not None
    return [hidden[mask.bool()] for hidden, mask in zip(text.hidden, text.mask, strict=True)]
