"""CogView4: GLM's states, the image's size, a linear time shift by resolution."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision
from lavi_bridge.visions.noise.process import Flow


@VISIONS.register("CogView4Pipeline")
class CogView4(Vision):
    """No mask: GLM and the transformer read padding."""

    backbone_class: ClassVar[str] = "CogView4Transformer2DModel"
    text_config: ClassVar[str] = "text_embed_dim"
    default_tokens: ClassVar[int] = 224
    max_tokens: ClassVar[int | None] = 224
    padding: ClassVar[Padding] = "read"
    lora_targets: ClassVar[str] = r".*attn1\.(to_q|to_k|to_v|to_out\.0)"
    even_sigmas: ClassVar[bool] = True
    own_fields: ClassVar[Fields] = ("hidden", "null_hidden")
    own_alone: ClassVar[bool] = True  # GLM pads to the longest, and padding is read
    pipeline_class: ClassVar[str] = "CogView4Pipeline"

    def mu(self, height: int, width: int, steps: int | None = None) -> float | None:
        if super().mu(height, width) is None:
            return None
        config = self.process.config  # its defaults are those of `calculate_shift` in the pipeline
        root = (self.image_tokens(height, width) / config.get("base_image_seq_len", 256)) ** 0.5
        return float(root * config.get("max_shift", 0.75) + config.get("base_shift", 0.25))

    def sigmas(self, steps: int) -> list[float]:
        return (np.linspace(1000, 1.0, steps).astype(np.int64) / 1000).tolist()

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        assert isinstance(self.process, Flow)
        shift = self.process.shift_of(self.mu(*x_t.shape[-2:]))
        sigmas = timesteps / 1000  # it was trained on the times before the shift
        size = torch.cat([x_t.new_full((len(x_t), 1), n * self.scale) for n in x_t.shape[-2:]], 1)
        return self.backbone(
            x_t,
            encoder_hidden_states=text.hidden,
            timestep=1000 * sigmas / (shift - (shift - 1) * sigmas),
            original_size=size,
            target_size=size,
            crop_coords=torch.zeros_like(size),
        ).sample
