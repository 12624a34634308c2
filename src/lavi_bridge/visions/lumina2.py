"""Lumina-Image 2.0: time runs from noise (0) to image (1), and the answer the other way round."""

from typing import ClassVar

from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision


@VISIONS.register("Lumina2Pipeline")
class Lumina2(Vision):
    """Text is masked, in the transformer and in the language model."""

    backbone_class: ClassVar[str] = "Lumina2Transformer2DModel"
    text_config: ClassVar[str] = "cap_feat_dim"
    default_tokens: ClassVar[int] = 256
    padding: ClassVar[Padding] = "masked"
    lora_targets: ClassVar[str] = r".*attn\.(to_q|to_k|to_v|to_out\.0)"
    even_sigmas: ClassVar[bool] = True
    own_fields: ClassVar[Fields] = ("hidden", "mask", "null_hidden", "null_mask")
    pipeline_class: ClassVar[str] = "Lumina2Pipeline"

    @property
    def max_tokens(self) -> int:  # type: ignore[override]
        """As many as have positions."""
        return int(self.backbone.config.axes_lens[0]) - 1

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return -self.backbone(
            x_t,
            timestep=1 - timesteps.float() / 1000,
            encoder_hidden_states=text.hidden,
            encoder_attention_mask=text.mask,
        ).sample

    def guide(self, without: Tensor, told: Tensor, guidance: float) -> Tensor:
        """Each row as long as it is without guidance, as in the pipeline."""
        guided = super().guide(without, told, guidance)
        return guided * (told.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
