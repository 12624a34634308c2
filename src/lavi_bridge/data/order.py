"""Which samples make up batch number n: a closed formula, so that a run can go on anywhere.

Every cell (samples of one source and one image size) is an endless sequence of passes, each in an
order of its own. In an epoch, a source contributes its share; the cells of one size are shuffled
together and cut into batches, of which the rest is left for the next epoch. So nothing is dropped,
nothing is visited twice in a pass, and a batch holds one image size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lavi_bridge.running.seeds import seed_of

Array = NDArray[np.int64]


@dataclass(frozen=True)
class Visit:
    """One visit of a sample; all of its randomness derives from these and the run's seed."""

    number: int
    """How many times the sample has been visited before."""
    index: int


@dataclass(frozen=True)
class Sample:
    """A sample as it is, or mirrored: nothing about it is left to chance."""

    index: int
    mirrored: bool


class Order:
    """The endless sequence of batches.

    Args:
        sizes: of each sample, the number of its image size (its bucket); (count,).
        batch: samples of a batch, over all processes together.
        seed: of all orders.
        lengths: of the sources that the samples come from, one after the other; one by default.
        weights: of these sources: their shares of an epoch; by default their lengths.
        held_out: samples that never occur.
    """

    def __init__(
        self,
        sizes: Sequence[int] | Array,
        batch: int,
        seed: int,
        *,
        lengths: Sequence[int] = (),
        weights: Sequence[float] = (),
        held_out: Sequence[int] = (),
    ) -> None:
        self.batch, self.seed = batch, seed
        buckets = np.asarray(sizes, np.int64)
        kept = np.ones(len(buckets), bool)
        kept[list(held_out)] = False
        self.samples = int(kept.sum())
        lengths = lengths or [len(buckets)]
        weights = weights or lengths
        edges = np.cumsum([0, *lengths])
        self._cells: dict[int, list[tuple[Array, float]]] = {}  # members, passes per epoch
        for start, stop, weight in zip(edges, edges[1:], weights, strict=False):
            own = np.flatnonzero(kept[start:stop]) + start
            passes = weight / sum(weights) * self.samples / max(1, len(own))
            for bucket in np.unique(buckets[own]).tolist():
                members = own[buckets[own] == bucket]
                self._cells.setdefault(bucket, []).append((members, passes))
        self._pass = lru_cache(maxsize=4 * len(self._cells) + 8)(self._make_pass)
        self._epoch = lru_cache(maxsize=2 * len(self._cells) + 2)(self._make_epoch)

    def batches(self, first: int = 0) -> Iterator[list[Visit]]:
        """All batches from number `first` on."""
        epoch, before = 0, 0
        while before + (count := self._count(epoch)) <= first:
            epoch, before = epoch + 1, before + count
        while True:
            plan = self._plan(epoch)
            for bucket, number in plan[first - before :]:
                yield self._cut(bucket, number, epoch)
            before += len(plan)
            first, epoch = before, epoch + 1

    # ---- how much there is

    def _until(self, bucket: int, epoch: int) -> list[int]:
        """Samples that each cell of a bucket has given before an epoch."""
        return [round(epoch * passes * len(members)) for members, passes in self._cells[bucket]]

    def _batches_until(self, bucket: int, epoch: int) -> int:
        return sum(self._until(bucket, epoch)) // self.batch

    def _count(self, epoch: int) -> int:
        """Batches in an epoch; none where the data is smaller than a batch and more is awaited."""
        return sum(
            self._batches_until(b, epoch + 1) - self._batches_until(b, epoch) for b in self._cells
        )

    # ---- what there is

    def _plan(self, epoch: int) -> list[tuple[int, int]]:
        """The epoch's batches as (bucket, number of the batch in its bucket)."""
        first = {bucket: self._batches_until(bucket, epoch) for bucket in self._cells}
        labels = [
            bucket
            for bucket, number in first.items()
            for _ in range(self._batches_until(bucket, epoch + 1) - number)
        ]
        if len(first) > 1:
            order = self._generator("batches", epoch).permutation(len(labels))
            labels = [labels[i] for i in order]
        plan = []
        for bucket in labels:
            plan.append((bucket, first[bucket]))
            first[bucket] += 1
        return plan

    def _cut(self, bucket: int, number: int, epoch: int) -> list[Visit]:
        """A batch, which may begin with what an earlier epoch has left."""
        start, stop = number * self.batch, (number + 1) * self.batch
        while sum(self._until(bucket, epoch)) > start:
            epoch -= 1
        parts = []
        while start < stop:
            given = sum(self._until(bucket, epoch))
            samples = self._epoch(bucket, epoch)
            part = samples[start - given : stop - given]
            parts.append(part)
            start += len(part)
            epoch += 1
        return [Visit(visit, index) for visit, index in np.concatenate(parts).tolist()]

    def _make_epoch(self, bucket: int, epoch: int) -> Array:
        """A bucket's samples of an epoch, (count, 2): visit and index."""
        parts = []
        now, then = self._until(bucket, epoch), self._until(bucket, epoch + 1)
        for cell, (members, _) in enumerate(self._cells[bucket]):
            start, stop = now[cell], then[cell]
            while start < stop:
                visit, skip = divmod(start, len(members))
                part = self._pass(bucket, cell, visit)[skip : skip + stop - start]
                parts.append(np.stack([np.full(len(part), visit), part], 1))
                start += len(part)
        samples = np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
        if len(self._cells[bucket]) > 1:
            samples = self._generator("epoch", bucket, epoch).permutation(samples)
        return samples

    def _make_pass(self, bucket: int, cell: int, visit: int) -> Array:
        members, _ = self._cells[bucket][cell]
        return self._generator("pass", bucket, cell, visit).permutation(members)

    def _generator(self, *key: object) -> np.random.Generator:
        return np.random.default_rng(seed_of(self.seed, "order", *key))
