"""Wan 2.1 as an image model: one frame of its video transformer and of its autoencoder."""

from typing import ClassVar

from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Padding, Vision


@VISIONS.register("WanPipeline")
class Wan(Vision):
    """UMT5 masks padding, which then reaches the transformer as zeros."""

    backbone_class: ClassVar[str] = "WanTransformer3DModel"
    text_config: ClassVar[str] = "text_dim"
    default_tokens: ClassVar[int] = 512
    default_side: ClassVar[int] = 60  # 480 px, the smaller of its two sizes
    padding: ClassVar[Padding] = "zeroed"
    lora_targets: ClassVar[str] = r".*attn\d\.(to_q|to_k|to_v|to_out\.0)"
    pipeline_class: ClassVar[str] = "WanPipeline"

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        frames = self.backbone(
            x_t.unsqueeze(2), timestep=timesteps, encoder_hidden_states=text.hidden
        ).sample
        return frames.squeeze(2)
