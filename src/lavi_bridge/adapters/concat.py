"""The own encoder's condition, then the language model's tokens through the paper's adapter."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from lavi_bridge.adapters.base import ADAPTERS
from lavi_bridge.adapters.feedforward import FeedForwardAdapter
from lavi_bridge.text import Text


@ADAPTERS.register("concat")
class ConcatAdapter(FeedForwardAdapter):
    """For image models that read any number of tokens; the pooled vector is their own."""

    kind: ClassVar[str] = "concat"
    pools: ClassVar[bool] = False
    needs_own: ClassVar[bool] = True
    appends: ClassVar[bool] = True
    per_token: ClassVar[bool] = False

    @property
    def last(self) -> None:
        """None: its tokens come beside the own encoder's, so none of those is theirs to be."""
        return None

    def read(self, features: Text) -> Text:
        own = features.own
        assert own is not None  # a bridge with this adapter has read it
        ours = self(features.hidden)
        hidden = torch.cat([own.hidden.float(), ours], 1)
        mask = None
        if own.mask is not None or features.mask is not None:
            mask = torch.cat([_whole(own.mask, own.hidden), _whole(features.mask, ours)], 1)
            # real tokens first: some image models count them from there
            order = mask.argsort(stable=True, dim=1, descending=True)
            mask = mask.gather(1, order)
            hidden = hidden.gather(1, order.unsqueeze(-1).expand_as(hidden))
        pooled = None if own.pooled is None else own.pooled.float()
        return replace(features, hidden=hidden, mask=mask, pooled=pooled, own=None)


def _whole(mask: Tensor | None, hidden: Tensor) -> Tensor:
    """A mask (batch, tokens); ones where there is none."""
    if mask is not None:
        return mask.long().to(hidden.device)
    return torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
