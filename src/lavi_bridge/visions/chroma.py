"""Chroma: FLUX without a pooled vector and guidance input, with a mask that leaves one padding."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Fields, Padding
from lavi_bridge.visions.flux import Flux
from lavi_bridge.visions.patches import unpack


@VISIONS.register("ChromaPipeline")
class Chroma(Flux):
    """Text is masked, but for one token of padding."""

    backbone_class: ClassVar[str] = "ChromaTransformer2DModel"
    pooled_config: ClassVar[str | None] = None
    own_fields: ClassVar[Fields] = (
        "hidden",
        "ids",
        "mask",
        "null_hidden",
        "null_ids",
        "null_mask",
    )
    own_tokenizer: ClassVar[str | None] = "tokenizer"
    max_tokens: ClassVar[int | None] = None
    padding: ClassVar[Padding] = "masked"
    pipeline_class: ClassVar[str] = "ChromaPipeline"
    modular_class: ClassVar[str | None] = None

    def reads(self, text: Text) -> Text:
        """One token of padding beside the real ones: zeros, so that it is the same however a batch
        is padded. The mask is boolean, because numbers would be added to the scores."""
        if text.mask is None or text.mask.dtype != torch.long:
            return text  # its own encoder's, with that token
        hidden = nn.functional.pad(text.hidden * text.mask.unsqueeze(-1), (0, 0, 0, 1))
        places = torch.arange(hidden.shape[1], device=hidden.device)
        return replace(text, hidden=hidden, mask=places <= text.mask.sum(1, keepdim=True))

    def checkpoint_activations(self) -> None:
        """Refuse: diffusers leaves the mask out where activations are computed anew.

        Raises:
            BridgeError: always.
        """
        raise BridgeError(
            f"'{self.place.id}': diffusers' Chroma does not mask text with gradient checkpointing; "
            "train it without"
        )

    def pipeline_guidance(self, guidance: float) -> dict[str, float]:
        return {"guidance_scale": guidance}

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        height, width = x_t.shape[-2:]
        assert text.mask is not None
        image = text.mask.new_ones(len(x_t), height * width // 4)
        options = {"attention_mask": torch.cat([text.mask, image], 1)}
        return unpack(self._tokens_of(x_t, timesteps, text, options), height, width)
