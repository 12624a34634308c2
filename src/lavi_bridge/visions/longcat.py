"""LongCat-Image: FLUX's layout; places tell text from image, guidance makes no token longer."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields
from lavi_bridge.visions.flux import Flux
from lavi_bridge.visions.patches import diagonal, pack, places, unpack


@VISIONS.register("LongCatImagePipeline")
class LongCatImage(Flux):
    """Qwen masks its padding; the transformer reads all of it."""

    backbone_class: ClassVar[str] = "LongCatImageTransformer2DModel"
    pooled_config: ClassVar[str | None] = None
    own_fields: ClassVar[Fields] = ("hidden",)
    own_tokenizer: ClassVar[str | None] = None
    pipeline_class: ClassVar[str] = "LongCatImagePipeline"
    modular_class: ClassVar[str | None] = None

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        height, width = x_t.shape[-2:]
        words = torch.arange(text.hidden.shape[1], device=x_t.device)  # whole numbers beyond 256
        tokens = self.backbone(
            pack(x_t),
            timestep=timesteps.to(x_t.dtype) / 1000,
            encoder_hidden_states=text.hidden,
            txt_ids=diagonal(words),
            img_ids=places(height // 2, width // 2, words, (1, self.tokens, self.tokens)),
        ).sample
        return unpack(tokens, height, width)

    def guide(self, without: Tensor, told: Tensor, guidance: float) -> Tensor:
        """Each token at most as long as it is without guidance, as in the pipeline."""
        guided = pack(super().guide(without, told, guidance))
        length = pack(told).norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True)
        return unpack(guided * length.clamp(max=1), *told.shape[-2:])

    def pipeline(self, scheduler: Any) -> Any:
        """Its `encode_prompt` counts prompts where embeddings are given; it is not asked."""
        pipe = super().pipeline(scheduler)
        pipe.encode_prompt = _encoded
        return pipe

    def pipeline_text(self, text: Text, null: Text) -> dict[str, Any]:
        return super().pipeline_text(text, null) | {"enable_prompt_rewrite": False}

    def pipeline_guidance(self, guidance: float) -> dict[str, float]:
        return {"guidance_scale": guidance}


def _encoded(
    prompt: str | None, prompt_embeds: Tensor, num_images_per_prompt: int
) -> tuple[Tensor, Tensor]:
    embeds = prompt_embeds.repeat_interleave(num_images_per_prompt, 0)
    return embeds, diagonal(torch.arange(embeds.shape[1], device=embeds.device))
