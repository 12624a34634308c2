"""Stable Diffusion XL: a U-Net that reads two encoders' states, and a pooled vector."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields
from lavi_bridge.visions.sd_unet import StableDiffusionUNet


@VISIONS.register("StableDiffusionXLPipeline")
class StableDiffusionXL(StableDiffusionUNet):
    """Told the pooled text, and a picture's original size, its crop and the size that is drawn."""

    other_inputs: ClassVar[tuple[str, ...]] = (
        "class_embed_type",
        "num_class_embeds",
        "encoder_hid_dim_type",
    )
    default_side: ClassVar[int] = 128
    own_fields: ClassVar[Fields] = (
        "hidden",
        "null_hidden",
        "pooled",
        "null_pooled",
    )
    own_tokenizer: ClassVar[str | None] = "tokenizer"
    paper_sampling: ClassVar[tuple[int, float] | None] = None
    framed: ClassVar[bool] = True
    pipeline_class: ClassVar[str] = "StableDiffusionXLPipeline"
    stock_text: ClassVar[dict[str, Any] | None] = None
    modular_class: ClassVar[str | None] = "StableDiffusionXLAutoBlocks"
    pipeline_options: ClassVar[dict[str, Any]] = {"add_watermarker": False}

    @property
    def pooled_width(self) -> int:
        """What the vector of all conditions has beside the six numbers of the size."""
        config = self.backbone.config
        whole = int(config.projection_class_embeddings_input_dim)
        return whole - 6 * int(config.addition_time_embed_dim)

    def _tokens(self) -> int:
        return self.default_tokens

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        height, width = (side * self.scale for side in x_t.shape[-2:])
        # original size, corner of the crop, target size; filled on the device, without a wait
        sides = [x_t.new_full((len(x_t), 1), side) for side in (height, width, 0, 0)]
        whole = torch.cat(sides, 1)  # what is drawn was never larger, and nothing was cut off
        told = whole if text.framing is None else text.framing
        sizes = torch.cat([told, whole[:, :2]], 1)
        return self.backbone(
            x_t,
            timesteps,
            encoder_hidden_states=text.hidden,
            encoder_attention_mask=text.mask,  # None but where prompts are longer than its own
            added_cond_kwargs={"text_embeds": text.pooled, "time_ids": sizes},
        ).sample
