"""The text half as the text encoder of a stock pipeline: token ids in, features out."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor

from lavi_bridge.export.written.half import TextHalf


class TextEncoder(PeftAdapterMixin, TextHalf):
    """Stands where the pipeline's own text encoder stood; other people's LoRA passes it by."""

    @torch.no_grad()
    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> tuple[Tensor]:
        """Token ids (batch, tokens), 1 in the mask for real ones -> (features,).

        Raises:
            ValueError: inner layers are asked for (`clip_skip`), or a prompt is too long.
        """
        if options.get("output_hidden_states"):
            raise ValueError("this text encoder has no layers to skip: leave clip_skip out")
        ids, mask, length = input_ids, attention_mask, input_ids.shape[1]
        most = self.config.tokens
        if mask is not None and length > most:
            if mask[:, most:].any():
                raise ValueError(
                    f"a prompt has more than the {most} tokens that are read of it: "
                    f"call the pipeline with max_sequence_length={most}"
                )
            ids, mask = ids[:, :most], mask[:, :most]
        blank = (ids == self.config.pad).all(1)
        ids = torch.where(blank.unsqueeze(1), self._blank(ids), ids)
        if mask is not None:
            mask = mask.clone()
            mask[mask.sum(1) == 0, 0] = 1
        hidden = self.adapt(ids, mask).hidden
        missing = length - ids.shape[1]
        return (torch.nn.functional.pad(hidden, (0, 0, 0, missing)).to(self.dtype),)

    def _blank(self, ids: Tensor) -> Tensor:
        """An empty prompt of the shape of these."""
        first = torch.full_like(ids, self.config.pad)
        first[:, 0] = self.config.first
        return first
