"""FLUX.2 (dev, klein): squares of its autoencoder's z as latents, places on four axes."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision
from lavi_bridge.visions.patches import JOINT, places


@VISIONS.register("Flux2Pipeline")
class Flux2(Vision):
    """No text mask: padding is read. Guidance is an input."""

    backbone_class: ClassVar[str] = "Flux2Transformer2DModel"
    text_config: ClassVar[str] = "joint_attention_dim"
    default_tokens: ClassVar[int] = 512
    max_tokens: ClassVar[int | None] = 512
    padding: ClassVar[Padding] = "read"
    lora_targets: ClassVar[str] = (  # a single block's output is one layer, a double block's a list
        rf"transformer_blocks\.\d+\.attn\.{JOINT}|"
        r"single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
    )
    even_sigmas: ClassVar[bool] = True
    own_fields: ClassVar[Fields] = ("hidden",)
    pipeline_class: ClassVar[str] = "Flux2Pipeline"

    def mu(self, height: int, width: int, steps: int | None = None) -> float | None:
        """Between a line for 10 steps and one for 200; in training as for the pipeline's 50."""
        if super().mu(height, width) is None:
            return None
        tokens = self.image_tokens(height, width)
        few, many = 8.73809524e-5 * tokens + 1.89833333, 1.6927e-4 * tokens + 0.45666666
        return many if tokens > 4300 else few + (many - few) * ((steps or 50) - 10) / 190

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        height, width = x_t.shape[-2:]
        words = torch.arange(text.hidden.shape[1], device=x_t.device)  # whole numbers beyond 256
        tokens = self.backbone(
            x_t.flatten(2).transpose(1, 2),
            timestep=timesteps.to(x_t.dtype) / 1000,
            guidance=text.guidance,
            encoder_hidden_states=text.hidden,
            txt_ids=nn.functional.pad(words.unsqueeze(1), (3, 0)),
            img_ids=nn.functional.pad(places(height, width, words), (0, 1)),
        ).sample
        return tokens.transpose(1, 2).reshape(x_t.shape)


@VISIONS.register("Flux2KleinPipeline")
class Flux2Klein(Flux2):
    """Guided by a null prompt, as usual."""

    pipeline_class: ClassVar[str] = "Flux2KleinPipeline"

    @property
    def default_guidance(self) -> float:
        """Without where it was distilled, as its pipeline."""
        return 1.0 if self.few_steps else super().default_guidance
