"""PRX (Photoroom): one masked text sequence, read by the image's tokens."""

from typing import ClassVar

from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision


@VISIONS.register("PRXPipeline")
class PRX(Vision):
    """Its folder tells its size in `model_index.json`."""

    backbone_class: ClassVar[str] = "PRXTransformer2DModel"
    text_config: ClassVar[str] = "context_in_dim"
    default_tokens: ClassVar[int] = 256
    padding: ClassVar[Padding] = "masked"
    lora_targets: ClassVar[str] = r".*attention\.(img_qkv_proj|txt_kv_proj|to_out\.0)"
    own_fields: ClassVar[Fields] = ("hidden", "mask", "null_hidden", "null_mask")
    pipeline_class: ClassVar[str] = "PRXPipeline"

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return self.backbone(
            x_t,
            timestep=timesteps.float() / 1000,
            encoder_hidden_states=text.hidden,
            attention_mask=text.mask,
        ).sample
