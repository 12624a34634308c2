"""HiDream-I1: T5's states, a Llama's states layer by layer, a pooled vector; mixture of experts.

Longer than most families, because its pipeline has names of its own for all that it is told.
"""

from typing import Any, ClassVar

from torch import Tensor

from lavi_bridge.errors import BridgeError
from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision


@VISIONS.register("HiDreamImagePipeline")
class HiDream(Vision):
    """No text mask. All layers are told the same of what a Llama said layer by layer."""

    backbone_class: ClassVar[str] = "HiDreamImageTransformer2DModel"
    pooled_config: ClassVar[str | None] = "text_emb_dim"
    default_tokens: ClassVar[int] = 128
    max_tokens: ClassVar[int | None] = 128
    default_side: ClassVar[int] = 128
    padding: ClassVar[Padding] = "read"
    lora_targets: ClassVar[str] = r".*attn1\.(to_q|to_k|to_v|to_out)(_t)?"
    own_fields: ClassVar[Fields] = None
    pipeline_class: ClassVar[str] = "HiDreamImagePipeline"

    @property
    def text_width(self) -> int:
        return int(self.backbone.config.caption_channels[0])

    @property
    def more_widths(self) -> tuple[int, ...]:
        return (int(self.backbone.config.caption_channels[1]),)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """As everywhere; pictures that are not square fill a fixed number of tokens at most."""
        shape, most = super().latent_shape(height, width), self.backbone.max_seq
        if height != width and self.image_tokens(*shape[1:]) > most:
            raise BridgeError(
                f"'{self.place.id}' draws {most * self.side_step**2} pixels at most where sides "
                f"differ, not {width}×{height}"
            )
        return shape

    def mu(self, height: int, width: int, steps: int | None = None) -> float | None:
        """That of the greatest size, for all."""
        return super().mu(*self.backbone.config.max_resolution)

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        config = self.backbone.config
        answer = self.backbone(
            x_t,
            timesteps=timesteps,
            encoder_hidden_states_t5=text.hidden,
            encoder_hidden_states_llama3=self._layers(text),
            pooled_embeds=text.pooled,
        ).sample
        if self.backbone.training and not config.force_inference_output:
            side = config.patch_size  # it answers (B, C, tokens, squares) then
            grid = [length // side for length in x_t.shape[-2:]]
            squares = answer[:, :, : grid[0] * grid[1]].unflatten(3, (side, side))
            answer = squares.unflatten(2, grid).transpose(3, 4).reshape(x_t.shape)
        return -answer

    def pipeline_text(self, text: Text, null: Text) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for sign, one in (("", text), ("negative_", null)):
            found[f"{sign}prompt_embeds_t5"] = one.hidden
            found[f"{sign}prompt_embeds_llama3"] = self._layers(one)
            found[f"{sign}pooled_prompt_embeds"] = one.pooled
        return found

    def _layers(self, text: Text) -> Tensor:
        """(layers, B, L, width), of which the transformer takes those that its config names."""
        return text.more[0].hidden.expand(max(self.backbone.config.llama_layers) + 1, -1, -1, -1)
