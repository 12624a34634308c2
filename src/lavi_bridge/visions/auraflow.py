"""AuraFlow: T5 reads a mask, padding reaches the transformer as zeros."""

from typing import ClassVar

from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Padding, Vision
from lavi_bridge.visions.patches import JOINT


@VISIONS.register("AuraFlowPipeline")
class AuraFlow(Vision):
    """Flow matching with a fixed time shift."""

    backbone_class: ClassVar[str] = "AuraFlowTransformer2DModel"
    text_config: ClassVar[str] = "joint_attention_dim"
    default_tokens: ClassVar[int] = 256
    padding: ClassVar[Padding] = "zeroed"
    lora_targets: ClassVar[str] = rf".*attn\.{JOINT}"
    pipeline_class: ClassVar[str] = "AuraFlowPipeline"

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return self.backbone(
            x_t, encoder_hidden_states=text.hidden, timestep=(timesteps / 1000).to(x_t.dtype)
        ).sample
