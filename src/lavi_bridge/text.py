"""What a language model hands to a vision model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Text:
    """A batch of encoded prompts."""

    hidden: Tensor  # (batch, tokens, width)
    mask: Tensor | None = None  # (batch, tokens), 1 = real token; None = every token is read
    pooled: Tensor | None = None  # (batch, pooled width), for vision models that ask for it

    def __len__(self) -> int:
        return len(self.hidden)

    def to(self, *, dtype: torch.dtype) -> Text:
        """Cast the features; the mask keeps its type."""
        pooled = None if self.pooled is None else self.pooled.to(dtype)
        return replace(self, hidden=self.hidden.to(dtype), pooled=pooled)

    def expand(self, batch: int) -> Text:
        """Repeat a batch of one prompt `batch` times, without copying."""
        return Text(*(None if x is None else x.expand(batch, *x.shape[1:]) for x in self._parts()))  # type: ignore[arg-type]

    @staticmethod
    def cat(texts: Sequence[Text]) -> Text:
        """Join batches along the first axis."""
        columns = zip(*(text._parts() for text in texts), strict=True)
        return Text(*(None if c[0] is None else torch.cat(c) for c in columns))  # type: ignore[arg-type]

    def _parts(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return self.hidden, self.mask, self.pooled
