"""What a language model hands to a vision model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lavi_bridge.running.device import to_device


@dataclass(frozen=True)
class Text:
    """A batch of encoded prompts."""

    hidden: Tensor
    """(batch, tokens, width)"""
    mask: Tensor | None = None
    """(batch, tokens), 1 = real token; None = every token is read"""
    pooled: Tensor | None = None
    """(batch, pooled width), for vision models that ask for it"""
    guidance: Tensor | None = None
    """(batch,), where guidance is an input of the vision model"""
    framing: Tensor | None = None
    """(batch, 4), see `Bridge.loss`; None = whole pictures"""
    more: tuple[Text, ...] = ()
    """Further sequences, for vision models that read several."""
    own: Text | None = None
    """The own encoder's condition, for adapters that keep it."""

    def __len__(self) -> int:
        return len(self.hidden)

    def to(self, *, dtype: torch.dtype, device: torch.device | None = None) -> Text:
        """Cast the features, and move all to a device that is named; the mask keeps its type."""
        there = [x if x is None or device is None else to_device(x, device) for x in self._parts()]
        hidden, mask, pooled, guidance, framing = there
        assert hidden is not None
        pooled = None if pooled is None else pooled.to(dtype)
        more = tuple(one.to(dtype=dtype, device=device) for one in self.more)
        own = None if self.own is None else self.own.to(dtype=dtype, device=device)
        return Text(hidden.to(dtype), mask, pooled, guidance, framing, more, own)

    def expand(self, batch: int) -> Text:
        """Repeat a batch of one prompt `batch` times, without copying."""
        parts = (None if x is None else x.expand(batch, *x.shape[1:]) for x in self._parts())
        repeated = Text(*parts)  # type: ignore[arg-type]
        more = tuple(one.expand(batch) for one in self.more)
        return replace(repeated, more=more, own=self.own and self.own.expand(batch))

    @staticmethod
    def cat(texts: Sequence[Text]) -> Text:
        """Join batches along the first axis; the shorter get masked zeros at their ends."""
        lengths = {text.hidden.shape[1] for text in texts}
        if len(lengths) > 1 or len({text.mask is None for text in texts}) > 1:
            texts = [text._padded(max(lengths)) for text in texts]
        columns = zip(*(text._parts() for text in texts), strict=True)
        more = tuple(Text.cat(each) for each in zip(*(text.more for text in texts), strict=True))
        joined = Text(*(None if c[0] is None else torch.cat(c) for c in columns))  # type: ignore[arg-type]
        own = [text.own for text in texts if text.own is not None]
        return replace(joined, more=more, own=Text.cat(own) if own else None)

    def pick(self, rows: Sequence[int]) -> Text:
        """The prompts at these places of the batch."""
        found = Text(*(None if x is None else x[list(rows)] for x in self._parts()))  # type: ignore[arg-type]
        more = tuple(one.pick(rows) for one in self.more)
        return replace(found, more=more, own=self.own and self.own.pick(rows))

    def _padded(self, length: int) -> Text:
        """The same text at a greater length, with a mask."""
        missing = length - self.hidden.shape[1]
        mask = self.mask
        if mask is None:
            mask = torch.ones(self.hidden.shape[:2], dtype=torch.long, device=self.hidden.device)
        hidden = nn.functional.pad(self.hidden, (0, 0, 0, missing))
        return replace(self, hidden=hidden, mask=nn.functional.pad(mask, (0, missing)))

    def _parts(self) -> tuple[Tensor | None, ...]:
        """All but the further sequences."""
        return self.hidden, self.mask, self.pooled, self.guidance, self.framing
