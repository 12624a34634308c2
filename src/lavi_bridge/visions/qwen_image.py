"""Qwen-Image: packed latents of a video autoencoder; text is masked."""

from typing import ClassVar

from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision
from lavi_bridge.visions.patches import JOINT, pack, unpack


@VISIONS.register("QwenImagePipeline")
class QwenImage(Vision):
    """One frame of the autoencoder's is the image."""

    backbone_class: ClassVar[str] = "QwenImageTransformer2DModel"
    text_config: ClassVar[str] = "joint_attention_dim"
    default_tokens: ClassVar[int] = 512
    default_side: ClassVar[int] = 128
    padding: ClassVar[Padding] = "masked"
    even_sigmas: ClassVar[bool] = True
    packs: ClassVar[int] = 2
    own_fields: ClassVar[Fields] = ("hidden", "mask")
    pipeline_class: ClassVar[str] = "QwenImagePipeline"
    modular_class: ClassVar[str | None] = "QwenImageAutoBlocks"

    @property
    def lora_targets(self) -> str:  # type: ignore[override]
        """All attentions, but for what the last block's text would answer: nobody reads it."""
        last = self.backbone.config.num_layers - 1
        dead = rf"transformer_blocks\.{last}\.attn\.(add_q_proj|to_add_out)"
        return rf"(?!{dead}$).*attn\.{JOINT}"

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        height, width = x_t.shape[-2:]
        tokens = self.backbone(
            pack(x_t),
            timestep=timesteps.to(x_t.dtype) / 1000,
            guidance=text.guidance,
            encoder_hidden_states=text.hidden,
            encoder_hidden_states_mask=text.mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x_t),
        ).sample
        return unpack(tokens, height, width)

    def guide(self, without: Tensor, told: Tensor, guidance: float) -> Tensor:
        """Each token as long as it is without guidance, as in the pipeline."""
        guided = pack(super().guide(without, told, guidance))
        length = pack(told).norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True)
        return unpack(guided * length, *told.shape[-2:])

    def pipeline_guidance(self, guidance: float) -> dict[str, float]:
        return {"true_cfg_scale": guidance}
