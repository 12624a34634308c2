"""Scenes of the shapes world: coloured figures on plain paper, drawn as numbers, then as pixels.

Every picture comes from known facts, so that its scorer can be exact. The order of the random draws
is part of the data: the evaluation prompts, and thus every score, depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Array = NDArray[Any]

SIZE = 64  # pixels a side
MAX_OBJECTS = 4

# The outline of each figure as a signed distance, negative inside, in units of its radius;
# u runs to the right and v downwards from its centre.
OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda u, v: np.sqrt(u * u + v * v) - 1,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) - 0.88,
    "triangle": lambda u, v: np.maximum(v - 0.85, (abs(u) - (v + 1) / 1.85) / 1.137),
    "cross": lambda u, v: np.minimum(
        np.maximum(abs(u) - 0.36, abs(v) - 1), np.maximum(abs(v) - 0.36, abs(u) - 1)
    ),
    "ring": lambda u, v: abs(np.sqrt(u * u + v * v) - 0.74) - 0.26,
    "diamond": lambda u, v: (abs(u) + abs(v) - 1.05) / 1.4142,
}
SHAPES = tuple(OUTLINES)
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan")
PALETTE = np.array(
    [
        [0.86, 0.10, 0.10],
        [0.10, 0.60, 0.18],
        [0.13, 0.25, 0.86],
        [0.97, 0.85, 0.10],
        [0.55, 0.15, 0.70],
        [1.00, 0.50, 0.05],
        [0.15, 0.80, 0.88],
    ],
    dtype=np.float32,
)  # RGB in [0, 1], in the order of COLORS
TEXTURES = ("solid", "striped", "dotted")
BACKGROUNDS = ("white", "gray")
BACKGROUND_COLORS = np.array([[1.0, 1.0, 1.0], [0.72, 0.72, 0.72]], dtype=np.float32)

KINDS = ("single", "pair", "count", "complex")
SINGLE, PAIR, COUNT, COMPLEX = range(len(KINDS))
KIND_OF_CATEGORY = {
    "color": PAIR,  # two colours, two shapes
    "shape": PAIR,  # two shapes
    "texture": PAIR,  # textures equally likely, and told
    "spatial": PAIR,  # two shapes, their relation told
    "count": COUNT,  # two to four equal figures
    "complex": COMPLEX,  # two or three figures, everything told
}
CATEGORIES = tuple(KIND_OF_CATEGORY)

CLEAR = 8.0  # pixels by which one offset exceeds the other where a relation is beyond doubt


@dataclass(frozen=True)
class Figure:
    """One drawn object. Centre and radius are in pixels; y runs downwards."""

    shape: str
    color: str
    texture: str
    large: bool
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """One scene of a batch, in words and pixels; `kind` is one of KINDS."""

    background: str
    kind: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, eq=False)
class Scenes:
    """N scenes as arrays. Words are held as indices; slots from `count` on are unused."""

    background: Array  # (N,) int, into BACKGROUNDS
    kind: Array  # (N,) int, into KINDS
    count: Array  # (N,) int, 1 to MAX_OBJECTS
    shape: Array  # (N, MAX_OBJECTS) int, into SHAPES
    color: Array  # (N, MAX_OBJECTS) int, into COLORS
    texture: Array  # (N, MAX_OBJECTS) int, into TEXTURES
    large: Array  # (N, MAX_OBJECTS) bool
    x: Array  # (N, MAX_OBJECTS) float32, centre in pixels
    y: Array  # (N, MAX_OBJECTS) float32, centre in pixels, downwards
    radius: Array  # (N, MAX_OBJECTS) float32, in pixels

    def __len__(self) -> int:
        return len(self.count)

    def __iter__(self) -> Iterator[Scene]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> Scenes: ...
    def __getitem__(self, index: int | slice) -> Scene | Scenes:
        """One scene in words, or a part of the batch."""
        if isinstance(index, slice):
            return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})
        figures = tuple(
            Figure(
                shape=SHAPES[self.shape[index, slot]],
                color=COLORS[self.color[index, slot]],
                texture=TEXTURES[self.texture[index, slot]],
                large=bool(self.large[index, slot]),
                x=float(self.x[index, slot]),
                y=float(self.y[index, slot]),
                radius=float(self.radius[index, slot]),
            )
            for slot in range(self.count[index])
        )
        return Scene(BACKGROUNDS[self.background[index]], KINDS[self.kind[index]], figures)

    @classmethod
    def concatenate(cls, parts: Sequence[Scenes]) -> Scenes:
        """Several batches as one, in their order."""
        return cls(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        )


def draw_scenes(n: int, seed: int | Sequence[int], category: str | None = None) -> Scenes:
    """n random scenes: of one evaluation category, or (None) the mixture that models train on."""
    check_category(category)
    rng = np.random.default_rng(seed)
    if category is None:
        kind = rng.choice(len(KINDS), size=n, p=[0.22, 0.40, 0.18, 0.20])
    else:
        kind = np.full(n, KIND_OF_CATEGORY[category])
    two_to_four, two_or_three = rng.integers(2, 5, n), rng.integers(2, 4, n)
    count = np.choose(kind, [1, 2, two_to_four, two_or_three])

    slots = (n, MAX_OBJECTS)
    shape = rng.integers(0, len(SHAPES), slots)
    color = rng.integers(0, len(COLORS), slots)
    texture = rng.choice(len(TEXTURES), size=slots, p=[0.5, 0.25, 0.25])
    large = rng.integers(0, 2, slots).astype(bool)
    if category == "texture":
        texture = rng.integers(0, len(TEXTURES), slots)
    if category == "color":
        color[:, 1] = (color[:, 0] + rng.integers(1, len(COLORS), n)) % len(COLORS)
    if category in ("color", "shape", "spatial"):
        shape[:, 1] = (shape[:, 0] + rng.integers(1, len(SHAPES), n)) % len(SHAPES)

    alike = kind == COUNT
    for attribute in (shape, color, texture, large):
        attribute[alike] = attribute[alike][:, :1]
    large[alike & (count == 4)] = False  # four large figures would not fit
    large[(kind == COMPLEX) & (count == 3), 2] = False

    radius = np.where(large, rng.uniform(9.5, 11.0, slots), rng.uniform(5.6, 6.8, slots))
    x, y = _place(rng, radius, count, clear=(kind == PAIR) | (kind == COMPLEX))
    background = rng.integers(0, len(BACKGROUNDS), n)
    x, y, radius = (values.astype(np.float32) for values in (x, y, radius))
    return Scenes(background, kind, count, shape, color, texture, large, x, y, radius)


def check_category(category: str | None) -> None:
    if category is not None and category not in CATEGORIES:
        raise ValueError(f"unknown category {category!r}; known: {', '.join(CATEGORIES)}")


def _place(
    rng: np.random.Generator, radius: Array, count: Array, *, clear: Array
) -> tuple[Array, Array]:
    """Centres (N, MAX_OBJECTS) of figures that stay 3 px apart; scenes that do not fit are redrawn.

    Where `clear` (N,) is set, the relation of the first two figures is beyond doubt.
    """
    x, y = np.zeros_like(radius), np.zeros_like(radius)
    todo = np.arange(len(radius))
    while len(todo):
        reach = radius[todo]
        margin = reach + 1.5
        new_x = margin + rng.random(reach.shape) * (SIZE - 2 * margin)
        new_y = margin + rng.random(reach.shape) * (SIZE - 2 * margin)
        x[todo], y[todo] = new_x, new_y

        dx, dy = abs(new_x[:, 0] - new_x[:, 1]), abs(new_y[:, 0] - new_y[:, 1])
        fits = (abs(dx - dy) > CLEAR) | ~clear[todo]
        for i, j in combinations(range(MAX_OBJECTS), 2):
            gap = reach[:, i] + reach[:, j] + 3
            apart = (abs(new_x[:, i] - new_x[:, j]) > gap) | (abs(new_y[:, i] - new_y[:, j]) > gap)
            fits &= apart | (count[todo] <= j)
        todo = todo[~fits]
    return x, y


@dataclass(frozen=True)
class Windows:
    """Square windows on the canvas, one for each of M figures: all that painting has to look at."""

    left: Array  # (M,) int, first column
    top: Array  # (M,) int, first row
    size: int  # pixels a side

    @classmethod
    def around(cls, x: Array, y: Array, size: int) -> Windows:
        """Windows centred on (x, y), moved to lie inside the canvas."""
        left, top = (np.floor(c - size / 2).clip(0, SIZE - size).astype(int) for c in (x, y))
        return cls(left, top, size)

    @property
    def columns(self) -> Array:
        """Horizontal pixel centres (M, 1, size)."""
        return self._centres(self.left)[:, None, :]

    @property
    def rows(self) -> Array:
        """Vertical pixel centres (M, size, 1)."""
        return self._centres(self.top)[:, :, None]

    def _centres(self, first: Array) -> Array:
        return (first[:, None] + np.arange(self.size) + 0.5).astype(np.float32)

    def view(self, planes: Array) -> Array:
        """All windows of (..., SIZE, SIZE) planes, without a copy: (..., top, left, size, size)."""
        return sliding_window_view(planes, (self.size, self.size), axis=(-2, -1), writeable=True)

    def coverage(self, shape: Array, x: Array, y: Array, radius: Array) -> Array:
        """How much of each pixel the figure covers, (M, size, size) in [0, 1]."""
        x, y, radius = (values[:, None, None] for values in (x, y, radius))
        u, v = (self.columns - x) / radius, (self.rows - y) / radius
        covered = np.empty((len(shape), self.size, self.size), np.float32)
        for index in np.unique(shape):
            of = shape == index
            distance = OUTLINES[SHAPES[index]](u[of], v[of]) * radius[of]  # pixels
            covered[of] = (0.5 - distance).clip(0, 1)
        return covered

    def ink(self, color: Array, texture: Array) -> Array:
        """The textured colour of each pixel, (M, 3, size, size) in [0, 1]."""
        keep, lift = (self.view(p)[texture, self.top, self.left][:, None] for p in _textures())
        return PALETTE[color][:, :, None, None] * keep + lift


@cache
def _textures() -> tuple[Array, Array]:
    """Two planes (textures, SIZE, SIZE): a pixel's ink is its colour · the first + the second."""
    offset = (np.arange(SIZE, dtype=np.float32) + 0.5) % 6
    stripes = np.broadcast_to((offset < 3)[:, None], (SIZE, SIZE))
    dots = (1.9 - np.sqrt((offset[:, None] - 3) ** 2 + (offset - 3) ** 2)).clip(0, 1)
    zero, one = np.zeros_like(dots), np.ones_like(dots)
    keep = np.stack([one, one - np.float32(0.72) * stripes, one - dots])  # as TEXTURES
    return keep, np.stack([zero, zero, dots])


def paint(scenes: Scenes) -> Array:
    """The scenes as float32 images (N, 3, SIZE, SIZE) in [0, 1], as numpy."""
    canvas = np.empty((len(scenes), 3, SIZE, SIZE), np.float32)
    chunk = 64  # scenes whose windows stay in the processor's cache together
    for start in range(0, len(scenes), chunk):
        part = slice(start, start + chunk)
        _paint(canvas[part], scenes[part])
    return canvas


def pictures(scenes: Scenes) -> list[Image]:
    """The scenes as RGB pictures of SIZE x SIZE pixels."""
    from PIL.Image import fromarray

    pixels = np.rint(paint(scenes).transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    return [fromarray(picture) for picture in pixels]


def _paint(canvas: Array, scenes: Scenes) -> None:
    canvas[:] = BACKGROUND_COLORS[scenes.background][:, :, None, None]
    for slot in range(scenes.count.max()):
        who = np.flatnonzero(scenes.count > slot)
        x, y, radius = (values[who, slot] for values in (scenes.x, scenes.y, scenes.radius))
        # the widest figure, the diamond, ends 1.05 radii and a soft edge from its centre
        size = min(SIZE, 2 * int(np.ceil(1.05 * radius.max() + 1.25)))
        windows = Windows.around(x, y, size)
        covered = windows.coverage(scenes.shape[who, slot], x, y, radius)[:, None]
        ink = windows.ink(scenes.color[who, slot], scenes.texture[who, slot])
        canvas_windows = windows.view(canvas)
        at = (who, slice(None), windows.top, windows.left)
        canvas_windows[at] = canvas_windows[at] * (1 - covered) + ink * covered


def render(scenes: Scenes) -> Tensor:
    """The scenes as float32 images (N, 3, SIZE, SIZE) in [0, 1]."""
    import torch

    return torch.from_numpy(paint(scenes))
