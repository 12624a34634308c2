"""Training samples: everything random about one derives from the seed, the visit and the index."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import Dataset

from lavi_bridge.data import (
    BadImage,
    LatentCache,
    Mix,
    Moments,
    Order,
    Sample,
    Source,
    Visit,
    buckets,
    nearest_bucket,
    normalise,
    to_pixels,
)
from lavi_bridge.data.pixels import ORIGINAL, READING
from lavi_bridge.data.readers import Readers
from lavi_bridge.data.transforms import Framing, Size, framing
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import make_folder, read_safetensors
from lavi_bridge.running.device import to_device
from lavi_bridge.running.progress import progress
from lavi_bridge.running.run_state import write_tensors
from lavi_bridge.running.seeds import seed_of
from lavi_bridge.text import Text
from lavi_bridge.visions import Vision

T = TypeVar("T")
NOTHING = torch.empty(0)


@dataclass(frozen=True)
class Look:
    """How samples are read: what is drawn by chance, and what counts as a picture."""

    seed: int = 0
    caption_dropout: float = 0.0
    """Share of captions that are left empty."""
    flip: bool = False
    """Mirror every second picture."""
    crop: Literal["center", "random"] = "center"
    fast_decode: bool = True
    """Decode large JPEGs at a fraction of their size."""
    min_size: int = 0
    """Shorter side, in pixels, below which a picture is unreadable."""


@dataclass(frozen=True)
class Batch:
    """What `Bridge.loss` is given of some samples; its arguments have the same names."""

    captions: list[str] | None = None
    pixels: Tensor | None = None  # (batch, 3, height, width) in [-1, 1]
    latents: Tensor | None = None
    text: Text | None = None
    features: Text | None = None
    noise: Tensor | None = None
    timesteps: Tensor | None = None
    framing: Tensor | None = None  # (batch, 4), float32, for vision models that are told
    generator: list[Generator] | None = None


@dataclass(frozen=True)
class Example:
    """One training sample; `error` says why there are no pixels."""

    pixels: Tensor | None  # (3, height, width) uint8
    caption: str
    seed: int
    sample: Sample
    error: str | None = None
    fatal: bool = False
    """Whether the error is no fault of the picture's, and must end the run."""
    moments: Moments | None = None
    """In place of pixels, where a cache has them."""
    framing: Framing | None = None
    """How the picture was cut out; None where a cache does not say."""

    @property
    def good(self) -> bool:
        """Whether there is anything to learn from."""
        return self.pixels is not None or self.moments is not None


class Examples(Dataset[Example]):
    """Samples: by visit, which draws what chance may do, or as they are.

    Args:
        sizes: the image sizes (width, height) in use.
        size_of: of each sample the number of its size; by default all have the first.
        cache: gives encoded pictures where it has them.
    """

    def __init__(
        self,
        source: Source,
        look: Look,
        sizes: Sequence[Size],
        size_of: NDArray[np.int64] | None = None,
        cache: LatentCache | None = None,
    ) -> None:
        self.source, self.look, self.cache = source, look, cache
        self.sizes, self.size_of = sizes, size_of

    def plain(self) -> Examples:
        """The same samples with nothing left to chance: whole captions, centres, never mirrored."""
        other = copy.copy(self)
        other.look = replace(self.look, caption_dropout=0.0, flip=False, crop="center")
        return other

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Visit | Sample) -> Example:
        look, index = self.look, key.index
        number = key.number if isinstance(key, Visit) else 0
        seed = seed_of(look.seed, number, index)
        draws = torch.rand(5, generator=Generator().manual_seed(seed)).tolist()
        flipped, dropped, told, *corner = draws
        texts = self.source.texts(index)
        caption = texts[int(told * len(texts))]
        caption = "" if dropped < look.caption_dropout else caption
        size = self.size(index)
        least = max(*size, look.min_size)
        if isinstance(key, Visit):
            key = Sample(index, look.flip and flipped < 0.5)
        if self.cache is not None and key in self.cache:
            try:
                held = self.cache[key]
                return Example(None, caption, seed, key, moments=held, framing=held.framing)
            except BridgeError as error:
                return Example(None, "", seed, key, str(error), fatal=True)
        try:
            picture = self.source.picture(index, least if look.fast_decode else None)
        except BadImage as error:
            return Example(None, "", seed, key, str(error))
        if min(picture.size) < look.min_size:
            reason = f"{picture.width}×{picture.height} px, smaller than min_size"
            return Example(None, "", seed, key, f"{self.source.where(index)}: {reason}")
        place = (corner[0], corner[1]) if look.crop == "random" else (0.5, 0.5)
        pixels = to_pixels(picture, size, mirror=key.mirrored, corner=place)
        original = picture.info.get(ORIGINAL, picture.size)
        told = framing(picture, size, original=original, mirror=key.mirrored, corner=place)
        return Example(pixels, caption, seed, key, framing=told)

    def size(self, index: int) -> Size:
        """Width and height that a sample is trained at."""
        return self.sizes[0 if self.size_of is None else int(self.size_of[index])]


def inputs(examples: Sequence[Example], vision: Vision, cache: LatentCache | None = None) -> Batch:
    """What `Bridge.loss` needs of samples that have pixels or moments.

    With a cache, what it lacks is encoded, added, and taken as the cache would give it back.
    """
    generators = [Generator().manual_seed(e.seed) for e in examples]
    captions = [e.caption for e in examples]
    told = _framings(examples, vision)
    held = {id(e): e.moments for e in examples}
    if cache is not None:  # it may have grown since the sample was read
        held |= {id(e): cache.get(e.sample) for e in examples if e.moments is None}
    fresh = [e for e in examples if held[id(e)] is None]
    if cache is None and len(fresh) == len(examples):
        return Batch(captions, pixels=_pixels(fresh, vision), framing=told, generator=generators)
    held |= {id(e): made for e, made in zip(fresh, encoded(fresh, vision, cache), strict=True)}
    found = [moments for moments in (held[id(e)] for e in examples) if moments]
    means = to_device(torch.stack([m.mean for m in found]), vision.device)
    stds = [m.std for m in found if m.std is not None]
    std = to_device(torch.stack(stds), vision.device) if stds else None
    latents = vision.draw(means, std, generators)
    return Batch(captions, latents=latents, framing=told, generator=generators)


def encoded(
    examples: Sequence[Example], vision: Vision, cache: LatentCache | None
) -> list[Moments]:
    """Moments, on the CPU, of samples that have pixels; added to the cache, as it gives them back.

    A batch comes from the device at once, in the cache's precision.
    """
    if not examples:
        return []
    mean, std = vision.moments(_pixels(examples, vision))
    both = mean if std is None else torch.cat([mean, std], 1)
    rows = (both if cache is None else both.to(cache.dtype)).cpu()
    parts = [row.split(len(mean[0])) for row in rows]
    made = [
        Moments(row[0], None if std is None else row[1], e.framing)
        for row, e in zip(parts, examples, strict=True)
    ]
    if cache is not None:
        for example, moments in zip(examples, made, strict=True):
            cache.add(example.sample, moments)
    return made


def _framings(examples: Sequence[Example], vision: Vision) -> Tensor | None:
    """(batch, 4), on the model's device, where it is told; whole where a cache does not say."""
    if not vision.framed:
        return None
    rows = [e.framing or (*_sides(e, vision), 0, 0) for e in examples]
    return to_device(torch.tensor(rows, dtype=torch.float32), vision.device)


def _sides(example: Example, vision: Vision) -> Size:
    """Height and width in pixels that an example is trained at."""
    if example.moments is None:
        assert example.pixels is not None
        return example.pixels.shape[-2], example.pixels.shape[-1]
    height, width = example.moments.mean.shape[-2:]
    return height * vision.scale, width * vision.scale


def _pixels(examples: Sequence[Example], vision: Vision) -> Tensor:
    """Pixels in [-1, 1] on the model's device, where bytes arrive sooner than floats would."""
    bytes_ = torch.stack([e.pixels for e in examples if e.pixels is not None])
    return normalise(to_device(bytes_, vision.device))


def order_of(
    source: Source,
    size_of: NDArray[np.int64] | None,
    *,
    batch: int,
    seed: int,
    held_out: Sequence[int] = (),
) -> Order:
    """The order of all batches; the sources of a mix come in their shares."""
    sizes = np.zeros(len(source), np.int64) if size_of is None else size_of
    lengths, weights = (source.lengths, source.weights) if isinstance(source, Mix) else ((), ())
    return Order(sizes, batch, seed, lengths=lengths, weights=weights, held_out=held_out)


def load(
    examples: Examples, order: Order, *, first: int, workers: int, rank: int, batch: int
) -> AbstractContextManager[Iterator[list[Example]]]:
    """This process's part of every batch from number `first` on; as `read` reads."""
    start = rank * batch
    parts = (keys[start : start + batch] for keys in order.batches(first))
    return read(examples, parts, workers)


@contextmanager
def read(
    examples: Examples, batches: Iterable[list[Visit]] | Iterable[list[Sample]], workers: int
) -> Iterator[Iterator[list[Example]]]:
    """Samples in batches of one size each, read by so many processes, which end with the block.

    Raises:
        BridgeError: a process that reads has died, when its batch is asked for.
    """
    if not workers:
        yield ([examples[key] for key in keys] for keys in batches)
        return
    with closing(Readers(examples, batches, workers=workers, pack=_pack)) as packed:
        yield map(_unpack, packed)


def _pack(examples: list[Example]) -> tuple[list[Example], list[Tensor | None]]:
    """One tensor of each kind for the whole batch: each costs a file between processes."""
    pixels = [e.pixels for e in examples if e.pixels is not None]
    moments = [e.moments for e in examples if e.moments is not None]
    stds = [m.std for m in moments if m.std is not None]
    kinds = [pixels, [m.mean for m in moments], stds]
    marks = [
        replace(
            e,
            pixels=None if e.pixels is None else NOTHING,
            moments=None if e.moments is None else Moments(NOTHING, None),
        )
        for e in examples
    ]
    return marks, [torch.stack(tensors) if tensors else None for tensors in kinds]


def _unpack(packed: tuple[list[Example], list[Tensor | None]]) -> list[Example]:
    examples, kinds = packed
    pixels, means, stds = (iter(()) if kind is None else iter(kind) for kind in kinds)
    return [
        replace(
            e,
            pixels=None if e.pixels is None else next(pixels),
            moments=None if e.moments is None else Moments(next(means), next(stds, None)),
        )
        for e in examples
    ]


def sizes_of(
    source: Source, vision: Vision, resolution: int, *, folder: Path | None, show: bool
) -> tuple[Sequence[Size], NDArray[np.int64] | None]:
    """The sizes (width, height) that pictures are trained at, and which of them each sample has.

    Args:
        folder: keeps the pictures' sides once they are read; without one all have one square size.
    """
    if folder is None:
        return [(resolution, resolution)], None
    step = vision.side_step
    among = buckets(resolution, max(step, resolution // 8 // step * step))
    cache = folder / "sizes" / "headers.safetensors"
    return among, assign_sizes(source, among, cache=cache, show=show)


def in_threads(work: Callable[[int], T], count: int) -> Iterator[T]:
    """`work` of every number below `count`, in order, a few thousand waiting at a time."""
    with ThreadPoolExecutor(16) as pool:
        for start in range(0, count, 4096):
            yield from pool.map(work, range(start, min(start + 4096, count)))


def assign_sizes(
    source: Source, among: Sequence[Size], *, cache: Path, show: bool
) -> NDArray[np.int64]:
    """The number of the size whose shape is nearest to each sample's picture.

    Headers are read once and kept in `cache`, by data set and way of reading. A picture that cannot
    be read gets the first size; it is counted when its turn comes.
    """
    identity = f"{source.identity()} read by {READING}"
    sides: Tensor | None = None
    if cache.exists():
        sides = read_safetensors(cache).get(identity)
    if sides is None:

        def measure(index: int) -> Size:
            try:
                return source.size(index)
            except BadImage:
                return 0, 0

        found = progress(
            in_threads(measure, len(source)),
            total=len(source),
            desc="reading sizes",
            unit="image",
            disable=not show,
        )
        sides = torch.from_numpy(np.fromiter(found, dtype=np.dtype((np.int32, 2))))
        if show:
            make_folder(cache.parent)
            write_tensors({identity: sides}, cache)
    shapes, inverse = np.unique(sides.numpy(), axis=0, return_inverse=True)
    numbers = [nearest_bucket((w, h), among) if w and h else 0 for w, h in shapes.tolist()]
    return np.asarray(numbers, np.int64)[inverse.reshape(-1)]
