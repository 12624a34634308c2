"""Sana (arXiv 2410.10629): linear attention, flow matching and a deep-compression autoencoder."""

from typing import Any, ClassVar

from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision


@VISIONS.register("SanaPipeline")
class Sana(Vision):
    """Text is masked, in the transformer and in the language model; its pipeline puts an
    instruction before the prompt."""

    backbone_class: ClassVar[str] = "SanaTransformer2DModel"
    default_tokens: ClassVar[int] = 300
    padding: ClassVar[Padding] = "masked"
    lora_targets: ClassVar[str] = r".*attn\d\.(to_q|to_k|to_v|to_out\.0)"
    own_fields: ClassVar[Fields] = ("hidden", "mask", "null_hidden", "null_mask")
    pipeline_class: ClassVar[str] = "SanaPipeline"
    stock_text: ClassVar[dict[str, Any] | None] = {"complex_human_instruction": None}

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return self.backbone(
            x_t,
            encoder_hidden_states=text.hidden,
            encoder_attention_mask=text.mask,
            timestep=timesteps * self.backbone.config.timestep_scale,
        ).sample
