"""Stable Diffusion 3 and 3.5: text and image tokens attend to each other; flow matching."""

from typing import ClassVar

from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision
from lavi_bridge.visions.patches import JOINT


@VISIONS.register("StableDiffusion3Pipeline")
class StableDiffusion3(Vision):
    """No text mask: padding is read (77 tokens of CLIP and 256 of T5)."""

    backbone_class: ClassVar[str] = "SD3Transformer2DModel"
    text_config: ClassVar[str] = "joint_attention_dim"
    pooled_config: ClassVar[str | None] = "pooled_projection_dim"
    default_tokens: ClassVar[int] = 333
    max_tokens: ClassVar[int | None] = 333
    padding: ClassVar[Padding] = "read"
    own_fields: ClassVar[Fields] = (
        "hidden",
        "null_hidden",
        "pooled",
        "null_pooled",
    )
    pipeline_class: ClassVar[str] = "StableDiffusion3Pipeline"
    modular_class: ClassVar[str | None] = "StableDiffusion3AutoBlocks"

    @property
    def lora_targets(self) -> str:  # type: ignore[override]
        """All attentions, but the last block's text queries: what they ask is thrown away."""
        last = self.backbone.config.num_layers - 1
        return rf"(?!transformer_blocks\.{last}\.attn\.add_q_proj$).*attn2?\.{JOINT}"

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return self.backbone(
            x_t,
            encoder_hidden_states=text.hidden,
            pooled_projections=text.pooled,
            timestep=timesteps,
        ).sample
