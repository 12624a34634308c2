"""What a warm start on states compares, made once a caption: our tokens, and the teacher's states.

Captions come in groups and chunks that never change: a group's states are the same bits whenever
they are made, so a start that goes on from its folder ends with the very same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.languages import Language
from lavi_bridge.running.device import to_device
from lavi_bridge.train.warm_start.alignment import align

NULL_SHARE = 16
"""One caption in so many is the empty one: guidance needs its features, too."""
CHUNK = 16
"""Groups that are matched at once: a call of a tokenizer costs as much as dozens of captions."""
READ = 64
"""Captions that the teacher reads at once."""
ROUND = 8
"""Masked batches are as long as their longest caption, rounded up to a multiple of this."""


@dataclass(frozen=True)
class Matched:
    """Captions as our language model reads them, and the state that each token should become."""

    ids: Tensor  # (captions, tokens)
    mask: Tensor  # (captions, tokens), 1 = real token
    states: Tensor  # (captions, tokens, teacher's width)
    weights: Tensor  # (captions, tokens): of the tokens' errors, in sum 1; 0 where none is matched

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return sum(tensor.nbytes for tensor in self._parts())

    @staticmethod
    def cat(parts: Sequence[Matched]) -> Matched:
        """Join captions; shorter parts are padded with tokens that are masked and not matched."""
        length = max(part.ids.shape[1] for part in parts)
        columns = zip(*(part._padded(length) for part in parts), strict=True)
        return Matched(*(torch.cat(column) for column in columns))

    def split(self, size: int) -> list[Matched]:
        """Parts of so many captions; the last may be smaller."""
        columns = (part.split(size) for part in self._parts())
        return [Matched(*row) for row in zip(*columns, strict=True)]

    def _parts(self) -> list[Tensor]:
        return [getattr(self, entry.name) for entry in fields(self)]

    def _padded(self, length: int) -> list[Tensor]:
        missing = length - self.ids.shape[1]
        return [
            nn.functional.pad(part, (0, 0) * (part.ndim - 2) + (0, missing)) if missing else part
            for part in self._parts()
        ]


class Matcher:
    """Matches the tokens of a bridge's language model with those of a teacher."""

    def __init__(self, bridge: Bridge, teacher: Language) -> None:
        self.bridge, self.teacher = bridge, teacher
        self.masked = bridge.vision.masks
        self.length = tokens_read(teacher, bridge)
        """Tokens of the teacher."""

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Matched:
        """Tokenize captions for both models and let the teacher read them."""
        language, tokens = self.bridge.language, self.bridge.tokens
        ours = language.tokenize(captions, tokens)
        theirs = self.teacher.tokenize(captions, self.length)
        rows = zip(
            language.spans(captions, tokens),
            self.teacher.spans(captions, self.length),
            ours.mask.sum(1).tolist(),
            theirs.mask.sum(1).tolist(),
            strict=True,
        )
        targets = torch.tensor([align(a, b, n, m, masked=self.masked) for a, b, n, m in rows])
        if self.masked:  # padding is neither read nor matched; leaving it out saves its time
            tokens = min(-(-ours.longest // ROUND) * ROUND, tokens)
            targets = targets[:, :tokens]
        states = self._taught(theirs.ids, theirs.mask, theirs.longest)
        targets = to_device(targets, states.device)
        index = targets.clamp(min=0).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        there = (targets >= 0).float()
        return Matched(
            ours.ids[:, :tokens],
            ours.mask[:, :tokens],
            states.gather(1, index),
            there / there.sum(1, keepdim=True).clamp(min=1),
        )

    def _taught(self, ids: Tensor, mask: Tensor, longest: int) -> Tensor:
        """The teacher's states (captions, its tokens, width); of masked padding none."""
        length = min(longest, self.length) if self.masked else self.length
        parts = zip(ids[:, :length].split(READ), mask[:, :length].split(READ), strict=True)
        return torch.cat([self.teacher.hidden(i, m if self.masked else None) for i, m in parts])


class Groups:
    """Captions in groups, matched a chunk of groups at a time when first asked for.

    Args:
        size: captions a group.
    """

    def __init__(self, matcher: Matcher, captions: Sequence[str], size: int) -> None:
        self.matcher, self.captions, self.size = matcher, captions, size
        self._kept: dict[int, list[Matched]] = {}

    def __len__(self) -> int:
        return -(-len(self.captions) // self.size)

    def __getitem__(self, number: int) -> Matched:
        chunk, place = divmod(number, CHUNK)
        if chunk not in self._kept:
            start = chunk * CHUNK * self.size
            found = self.matcher(self.captions[start : start + CHUNK * self.size])
            self._kept[chunk] = found.split(self.size)
        return self._kept[chunk][place]

    def forget(self) -> None:
        """Let go of all that is kept."""
        self._kept.clear()


def tokens_read(language: Language, bridge: Bridge) -> int:
    """Tokens of a prompt that a language model would hand to the bridge's vision model."""
    return min(bridge.vision.tokens, language.max_tokens or bridge.vision.tokens)
