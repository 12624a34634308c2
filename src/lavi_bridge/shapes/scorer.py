"""The exact scorer of the shapes world: finds the figures of an image and checks a caption's facts.

A figure is found by analysis through synthesis: each connected patch of ink is compared with every
shape, texture and two radii, painted by the renderer itself, and the nearest painting names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from lavi_bridge.shapes.grammar import Facts, ObjectFact, relation_of
from lavi_bridge.shapes.scenes import (
    BACKGROUND_COLORS,
    BACKGROUNDS,
    COLORS,
    PALETTE,
    SHAPES,
    SIZE,
    TEXTURES,
    Array,
    Figure,
    Windows,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

INK = 0.22  # how far, in some channel, a pixel must be from the paper to count as ink
SPECK = 20  # pixels; smaller patches are no figures
PURE = 0.12  # squared RGB distance from a palette colour within which a pixel has a say on colour
LARGE = 8.2  # pixels of radius; small figures have at most 6.8, large ones at least 9.5
WINDOW = 32  # pixels a side; holds the largest figure with room to spare
SHRINKS = (0.0, -0.35)  # pixels: soft edges make a patch up to 0.35 px larger than its figure
MATCHED = 6  # patches that are matched to facts; an image with more fails by its count anyway


@dataclass(frozen=True)
class Detected(Figure):
    """A figure found in an image: the middle of its box and its radius are in pixels.

    `error` is the mean squared RGB distance between the image and the figure painted anew.
    """

    error: float


@dataclass(frozen=True)
class Verdict:
    """How well an image meets a caption: the fraction of its facts, and whether it meets all."""

    partial: float
    exact: bool


# Finding figures ----------------------------------------------------------------------------------


def detect(images: Tensor | Sequence[Image]) -> tuple[list[list[Detected]], list[int]]:
    """Each image's figures and its background, as an index into BACKGROUNDS.

    Images are a tensor (N, 3, SIZE, SIZE) in [0, 1], or PIL images of SIZE x SIZE pixels.
    """
    pixels = _pixels(images)
    paper = _paper(pixels)
    labels = _components(abs(pixels - paper[:, :, None, None]).max(axis=1) > INK)
    patches = _patches(pixels, labels)
    found: list[list[Detected]] = [[] for _ in pixels]
    chunk = 64  # patches whose windows stay in the processor's cache together
    for start in range(0, len(patches), chunk):
        part = patches[start : start + chunk]
        for image, figure in zip(part.image, _name(part, pixels, labels, paper), strict=True):
            found[image].append(figure)
    distance = abs(paper[:, None] - BACKGROUND_COLORS).sum(axis=2)
    return found, distance.argmin(axis=1).tolist()


def _pixels(images: Tensor | Sequence[Image]) -> Array:
    """Float32 (N, 3, SIZE, SIZE) in [0, 1]."""
    if not isinstance(images, Sequence):
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, SIZE, SIZE):
            raise ValueError(
                f"images have the shape {tuple(images.shape)}; expected (N, 3, {SIZE}, {SIZE})"
            )
        return images.detach().float().cpu().numpy()
    for index, image in enumerate(images):
        if image.size != (SIZE, SIZE):
            width, height = image.size
            raise ValueError(f"image {index} has {width}x{height} pixels; expected {SIZE}x{SIZE}")
    arrays = [np.asarray(image.convert("RGB"), np.float32) / 255 for image in images]
    return np.reshape(arrays, (-1, SIZE, SIZE, 3)).transpose(0, 3, 1, 2)


def _paper(pixels: Array) -> Array:
    """The paper's colour (N, 3): the median of the border, the lower of the two middle values."""
    border = [pixels[..., 0, :], pixels[..., -1, :], pixels[..., 0], pixels[..., -1]]
    ordered = np.sort(np.concatenate(border, axis=-1), axis=-1)
    return ordered[..., (ordered.shape[-1] - 1) // 2]


def _components(ink: Array) -> Array:
    """Labels (N, H, W) of the 8-connected patches of a mask: 0 is paper, each patch has its own.

    A patch is called by the place of its last pixel, counted from 1: labels rise over the images.
    """
    around = np.zeros((3, 3, 3), bool)
    around[1] = True  # not across images
    labels, count = ndimage.label(ink, around)
    last = np.zeros(count + 1, np.int64)
    np.maximum.at(last, labels.ravel(), np.arange(1, ink.size + 1))
    last[0] = 0
    return last[labels]


@dataclass(frozen=True, eq=False)
class _Patches:
    """M connected patches of ink: where they are and what colour they have."""

    image: Array  # (M,) int
    label: Array  # (M,) int
    color: Array  # (M,) int, into COLORS
    box: Array  # (4, M) float32: left, top, right and bottom edge in pixels

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, part: slice) -> _Patches:
        return _Patches(self.image[part], self.label[part], self.color[part], self.box[:, part])

    @property
    def middle(self) -> tuple[Array, Array]:
        """The x and y (M,) of the boxes' middles."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


def _patches(pixels: Array, labels: Array) -> _Patches:
    """All patches that are more than specks, image after image."""
    image, row, column = np.nonzero(labels)
    label, patch, area = np.unique(
        labels[image, row, column], return_inverse=True, return_counts=True
    )
    box = np.full((4, len(label)), SIZE)
    for edge, place in zip(box, (column, row, -column - 1, -row - 1), strict=True):
        np.minimum.at(edge, patch, place)
    box[2:] *= -1

    # each pixel votes for the nearest colour; mixed pixels only where a patch has no other
    distance = ((pixels[image, :, row, column][:, None] - PALETTE) ** 2).sum(axis=2)
    ballot = patch * len(COLORS) + distance.argmin(axis=1)
    pure, mixed = (
        np.bincount(votes, minlength=len(label) * len(COLORS)).reshape(-1, len(COLORS))
        for votes in (ballot[distance.min(axis=1) < PURE], ballot)
    )
    color = np.where(pure.any(axis=1), pure.argmax(axis=1), mixed.argmax(axis=1))

    kept = area >= SPECK
    owner = (label - 1) // (SIZE * SIZE)
    return _Patches(owner[kept], label[kept], color[kept], box[:, kept].astype(np.float32))


def _name(patches: _Patches, pixels: Array, labels: Array, paper: Array) -> list[Detected]:
    """The figure whose painting comes nearest to each patch."""
    x, y = patches.middle
    windows = Windows.around(x, y, WINDOW)
    seen = windows.view(pixels)[patches.image, :, windows.top, windows.left]
    label = windows.view(labels)[patches.image, windows.top, windows.left]
    mine = label == patches.label[:, None, None]
    compared = ((label == 0) | mine) & _near(patches, windows)
    base = paper[patches.image][:, :, None, None]

    names: list[tuple[str, str]] = []  # shape and texture of each candidate
    radii: list[Array] = []  # (M,) each
    errors: list[Array] = []  # (M,) each
    for shape, texture, radius, covered, ink in _candidates(patches, windows):
        painted = base * (1 - covered) + ink * covered
        error = ((painted - seen) ** 2).sum(axis=1) * compared
        names.append((shape, texture))
        radii.append(radius)
        errors.append(error.sum(axis=(1, 2)) / compared.sum(axis=(1, 2)).clip(1))

    return [
        Detected(
            shape=names[best][0],
            color=COLORS[patches.color[m]],
            texture=names[best][1],
            large=bool(radii[best][m] > LARGE),
            x=float(x[m]),
            y=float(y[m]),
            radius=float(radii[best][m]),
            error=float(errors[best][m]),
        )
        for m, best in enumerate(np.argmin(errors, axis=0))
    ]


def _near(patches: _Patches, windows: Windows) -> Array:
    """The pixels (M, WINDOW, WINDOW) inside a patch's box or up to 2 px around it."""
    left, top, right, bottom = patches.box[:, :, None, None]
    across: Array = (windows.columns > left - 2) & (windows.columns < right + 2)
    down: Array = (windows.rows > top - 2) & (windows.rows < bottom + 2)
    return across & down


def _candidates(
    patches: _Patches, windows: Windows
) -> Iterator[tuple[str, str, Array, Array, Array]]:
    """What each patch may be: shape, texture, radius (M,), and its coverage and ink to paint."""
    textures = [np.full_like(patches.color, index) for index in range(len(TEXTURES))]
    inks = [windows.ink(patches.color, texture) for texture in textures]
    for index, shape in enumerate(SHAPES):
        shapes = np.full_like(patches.color, index)
        x, y, largest = _fit(shape, patches)
        radii = [largest + shrink for shrink in SHRINKS]
        covers = [windows.coverage(shapes, x, y, radius)[:, None] for radius in radii]
        for texture, ink in zip(TEXTURES, inks, strict=True):
            for radius, covered in zip(radii, covers, strict=True):
                yield shape, texture, radius, covered, ink


def _fit(shape: str, patches: _Patches) -> tuple[Array, Array, Array]:
    """Centre x, y and radius (M,) with which a shape fills the patches' boxes."""
    left, top, right, bottom = patches.box
    width, height = right - left, bottom - top
    x, y = patches.middle
    if shape == "triangle":  # 2 radii wide, 1.85 high, its tip one radius above its centre
        radius = (width / 2 + height / 1.85) / 2
        return x, top + radius, radius
    reach = {"square": 0.88, "diamond": 1.05}.get(shape, 1.0)  # from centre to edge, in radii
    return x, y, (width + height) / 4 / reach


# Judging ------------------------------------------------------------------------------------------


def score(images: Tensor | Sequence[Image], facts: Sequence[Facts]) -> list[Verdict]:
    """How well each image, as for `detect`, meets the facts of its caption."""
    if len(images) != len(facts):
        raise ValueError(f"{len(images)} images for {len(facts)} captions' facts")
    found, backgrounds = detect(images)
    return [
        _judge(figures, BACKGROUNDS[background], required)
        for figures, background, required in zip(found, backgrounds, facts, strict=True)
    ]


def _judge(figures: list[Detected], background: str, facts: Facts) -> Verdict:
    """Counts the facts met under the most favourable matching of figures to required objects."""
    slots: list[Detected | None] = [*figures[:MATCHED]]
    slots += [None] * (len(facts.objects) - len(slots))
    met = max(_met(matching, facts) for matching in permutations(slots, len(facts.objects)))
    met += len(figures) == facts.count
    total = sum(_told(wanted) for wanted in facts.objects) + len(facts.relations) + 1
    if facts.background is not None:
        met += background == facts.background
        total += 1
    return Verdict(met / total, met == total)


def _told(wanted: ObjectFact) -> int:
    """The number of facts about one object."""
    return 2 + (wanted.texture is not None) + (wanted.large is not None)


def _met(matching: Sequence[Detected | None], facts: Facts) -> int:
    """The number of facts about objects and relations that one matching meets."""
    met = 0
    for wanted, figure in zip(facts.objects, matching, strict=True):
        if figure is not None:  # a fact that is not told is None, and equals nothing
            met += wanted.shape == figure.shape
            met += wanted.color == figure.color
            met += wanted.texture == figure.texture
            met += wanted.large == figure.large
    for relation in facts.relations:
        first, second = matching[relation.first], matching[relation.second]
        if first is not None and second is not None:
            met += relation_of(first.x - second.x, first.y - second.y) == relation.relation
    return met
