"""Stable Diffusion 1.x and 2.x (noise or velocity prediction): the paper's U-Net(SD).

Text is read by cross-attention without any mask, padding included, as the model was trained; of
prompts that are longer than that (`tokens`) the shorter ones have the rest masked.
"""

from typing import Any, ClassVar

from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Comfy, Padding, Vision


@VISIONS.register("StableDiffusionPipeline")
class StableDiffusionUNet(Vision):
    """LoRA on every linear and conv layer of resnets, attentions and GEGLUs, as published."""

    backbone_folder: ClassVar[str] = "unet"
    backbone_class: ClassVar[str] = "UNet2DConditionModel"
    text_config: ClassVar[str] = "cross_attention_dim"
    # of U-Nets for enlarging, for SDXL, and for pictures as prompts
    other_inputs: ClassVar[tuple[str, ...]] = (
        "class_embed_type",
        "num_class_embeds",
        "addition_embed_type",
        "encoder_hid_dim_type",
    )
    default_tokens: ClassVar[int] = 77
    padding: ClassVar[Padding] = "read"
    lora_targets: ClassVar[str] = (
        r".*(attn\d\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.0\.proj"
        r"|resnets\.\d+\.(conv1|conv2|time_emb_proj|conv_shortcut))"
    )
    paper_sampling: ClassVar[tuple[int, float] | None] = 50, 7.5
    pipeline_class: ClassVar[str] = "StableDiffusionPipeline"
    stock_text: ClassVar[dict[str, Any] | None] = {}
    comfyui_names: ClassVar[Comfy] = "unet"
    pipeline_options: ClassVar[dict[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }

    def _tokens(self) -> int:
        """As many as the model's own text encoder reads, where the folder still has it."""
        own = (self.place / "text_encoder").file("config.json")
        if own is None:
            return self.default_tokens
        config = (self.place / "text_encoder").json("config.json")
        return int(config.get("max_position_embeddings") or self.default_tokens)

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return self.backbone(
            x_t,
            timesteps,
            encoder_hidden_states=text.hidden,
            encoder_attention_mask=text.mask,  # None but where prompts are longer than its own
        ).sample
