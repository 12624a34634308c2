"""FLUX.1 (dev, schnell, Krea): packed latents, a pooled vector, guidance as an input (dev)."""

from typing import Any, ClassVar

from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision
from lavi_bridge.visions.patches import JOINT, pack, places, unpack


@VISIONS.register("FluxPipeline")
class Flux(Vision):
    """No text mask: padding is read."""

    backbone_class: ClassVar[str] = "FluxTransformer2DModel"
    text_config: ClassVar[str] = "joint_attention_dim"
    pooled_config: ClassVar[str | None] = "pooled_projection_dim"
    default_tokens: ClassVar[int] = 512
    max_tokens: ClassVar[int | None] = 512
    default_side: ClassVar[int] = 128
    padding: ClassVar[Padding] = "read"
    lora_targets: ClassVar[str] = rf".*attn\.{JOINT}"
    even_sigmas: ClassVar[bool] = True
    packs: ClassVar[int] = 2
    own_fields: ClassVar[Fields] = ("hidden", "pooled")
    own_tokenizer: ClassVar[str | None] = "tokenizer_2"
    pipeline_class: ClassVar[str] = "FluxPipeline"
    modular_class: ClassVar[str | None] = "FluxAutoBlocks"

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        height, width = x_t.shape[-2:]
        options: dict[str, Any] = {"guidance": text.guidance, "pooled_projections": text.pooled}
        return unpack(self._tokens_of(x_t, timesteps, text, options), height, width)

    @property
    def default_steps(self) -> int:
        """As its pipeline; four where guidance is no input: schnell was distilled for that."""
        return super().default_steps if self.distilled or not self.pooled_width else 4

    def pipeline_guidance(self, guidance: float) -> dict[str, float]:
        """Without guidance as an input (schnell), its pipeline calls ours "true"."""
        return {"guidance_scale" if self.distilled else "true_cfg_scale": guidance}

    def _tokens_of(
        self, x_t: Tensor, timesteps: Tensor, text: Text, options: dict[str, Any]
    ) -> Tensor:
        """The backbone's answer (B, H/2 · W/2, 4 C), with the arguments of the family."""
        height, width = x_t.shape[-2:]
        return self.backbone(
            pack(x_t),
            timestep=timesteps.to(x_t.dtype) / 1000,
            encoder_hidden_states=text.hidden,
            txt_ids=x_t.new_zeros(text.hidden.shape[1], 3),
            img_ids=places(height // 2, width // 2, x_t),
            **options,
        ).sample
