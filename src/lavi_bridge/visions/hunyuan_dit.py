"""HunyuanDiT: two text sequences of fixed lengths (CLIP's and T5's), the image's size; velocity.

Longer than most families, because its transformer is told positions and sizes by its caller.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from torch import Tensor, nn

from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding, Vision


@VISIONS.register("HunyuanDiTPipeline")
class HunyuanDiT(Vision):
    """Padding is masked, and zero where the second sequence is pooled without a mask."""

    backbone_class: ClassVar[str] = "HunyuanDiT2DModel"
    text_config: ClassVar[str] = "cross_attention_dim"
    default_tokens: ClassVar[int] = 256
    padding: ClassVar[Padding] = "masked"
    lora_targets: ClassVar[str] = r".*attn\d\.(to_q|to_k|to_v|to_out\.0)"
    own_fields: ClassVar[Fields] = None
    pipeline_class: ClassVar[str] = "HunyuanDiTPipeline"
    pipeline_options: ClassVar[dict[str, Any]] = {"requires_safety_checker": False}

    @property
    def more_widths(self) -> tuple[int, ...]:
        return (int(self.backbone.config.cross_attention_dim_t5),)

    @property
    def max_tokens(self) -> int:  # type: ignore[override]
        """As many as have learned places in the second sequence; the first ends before."""
        return int(self.backbone.config.text_len_t5)

    def _tokens(self) -> int:
        return self.max_tokens

    def reads(self, text: Text) -> Text:
        config, (second,) = self.backbone.config, text.more
        return replace(exactly(text, config.text_len), more=(exactly(second, config.text_len_t5),))

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        patch, (second,) = self.backbone.config.patch_size, text.more
        height, width = x_t.shape[-2:]
        sizes = (1024, 1024, height * self.scale, width * self.scale, 0, 0)
        return self.backbone(
            x_t,
            timesteps.to(x_t.dtype),
            encoder_hidden_states=text.hidden,
            text_embedding_mask=text.mask,
            encoder_hidden_states_t5=second.hidden,
            text_embedding_mask_t5=second.mask,
            image_meta_size=torch.cat([x_t.new_full((len(x_t), 1), side) for side in sizes], 1),
            style=torch.zeros(len(x_t), dtype=torch.long, device=x_t.device),
            image_rotary_emb=get_2d_rotary_pos_embed(
                self.backbone.inner_dim // self.backbone.num_heads,
                corners(height, width, 64 // patch),
                (height // patch, width // patch),
                device=x_t.device,
            ),
        ).sample


def exactly(text: Text, length: int) -> Text:
    """A text cut, or padded with masked zeros, to a length."""
    assert text.mask is not None
    missing = length - text.hidden.shape[1]  # negative: cut
    mask = nn.functional.pad(text.mask, (0, missing))
    hidden = nn.functional.pad(text.hidden, (0, 0, 0, missing)) * mask.unsqueeze(-1)
    return replace(text, hidden=hidden, mask=mask)


def corners(height: int, width: int, side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last place of a picture in the middle of a square that its longer side fills."""
    places = [round(side * short / max(height, width)) for short in (height, width)]
    first = [round((side - place) / 2) for place in places]
    return (first[0], first[1]), (first[0] + places[0], first[1] + places[1])
