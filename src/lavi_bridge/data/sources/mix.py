"""Several sources in stated shares, as the paper's 600k pairs of COCO and 400k others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from PIL import Image

from lavi_bridge.data.sources.base import Source, digest, plain_captions
from lavi_bridge.data.sources.finding import left_out


class Mix:
    """Sources one after the other; `weights` are their shares of what is drawn."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        self.sources, self.weights = list(sources), list(weights)
        self.lengths = [len(source) for source in sources]
        self._starts = [0, *accumulate(self.lengths)]

    def __len__(self) -> int:
        return self._starts[-1]

    def _of(self, index: int) -> tuple[Source, int]:
        which = bisect_right(self._starts, index) - 1
        return self.sources[which], index - self._starts[which]

    def picture(self, index: int, at_least: int | None = None) -> Image.Image:
        source, row = self._of(index)
        return source.picture(row, at_least)

    def size(self, index: int) -> tuple[int, int]:
        source, row = self._of(index)
        return source.size(row)

    def texts(self, index: int) -> Sequence[str]:
        source, row = self._of(index)
        return source.texts(row)

    def where(self, index: int) -> str:
        source, row = self._of(index)
        return source.where(row)

    def captions(self, count: int) -> list[str]:
        """Each source's share, one sample at least."""
        return [text for source, part in self._shares(count) for text in source.captions(part)]

    def plain_captions(self, count: int) -> list[str]:
        """The same, told plainly where a source can."""
        shares = self._shares(count)
        return [text for source, part in shares for text in plain_captions(source, part)]

    def _shares(self, count: int) -> list[tuple[Source, int]]:
        total = sum(self.weights)
        pairs = zip(self.sources, self.weights, strict=True)
        return [(source, max(1, round(count * weight / total))) for source, weight in pairs]

    def identity(self) -> str:
        return digest([*(s.identity() for s in self.sources), self.weights])

    def left_out(self) -> list[str]:
        """What its sources leave out."""
        return [line for source in self.sources for line in left_out(source)]
