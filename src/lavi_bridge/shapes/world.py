"""The shapes world: the small world in which the bundled models learn and are judged.

This is its front: `scenes` draws and renders, `grammar` tells; here that becomes an evaluation set
and a training set. Images are judged by `lavi_bridge.shapes.scorer`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lavi_bridge.shapes.free import Retold, retell
from lavi_bridge.shapes.grammar import (
    NUMBERS,
    RELATIONS,
    SIZES,
    Facts,
    Length,
    ObjectFact,
    Relation,
    caption,
    vocabulary,
)
from lavi_bridge.shapes.scenes import (
    BACKGROUND_COLORS,
    BACKGROUNDS,
    CATEGORIES,
    COLORS,
    MAX_OBJECTS,
    PALETTE,
    SHAPES,
    SIZE,
    TEXTURES,
    Figure,
    Scene,
    Scenes,
    draw_scenes,
    pictures,
    render,
)

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "BACKGROUNDS",
    "BACKGROUND_COLORS",
    "CATEGORIES",
    "COLORS",
    "MAX_OBJECTS",
    "NUMBERS",
    "PALETTE",
    "RELATIONS",
    "SHAPES",
    "SIZE",
    "SIZES",
    "TEXTURES",
    "FactPrompt",
    "Facts",
    "Figure",
    "Length",
    "ObjectFact",
    "Relation",
    "Scene",
    "Scenes",
    "ShapesWorld",
    "caption",
    "draw_scenes",
    "evaluation_set",
    "render",
    "vocabulary",
]


@dataclass(frozen=True)
class FactPrompt:
    """One evaluation prompt with the facts that its picture is judged by."""

    text: str
    facts: Facts
    category: str


def evaluation_set(per_category: int, seed: int = 777) -> tuple[list[FactPrompt], Scenes]:
    """The prompts, category after category, and the scenes that they were written from."""
    prompts, parts = [], []
    for offset, category in enumerate(CATEGORIES):
        scenes = draw_scenes(per_category, seed + offset, category)
        rng = random.Random(seed + offset)
        prompts += [FactPrompt(*caption(scene, rng, category), category) for scene in scenes]
        parts.append(scenes)
    return prompts, Scenes.concatenate(parts)


BLOCK = 256  # scenes drawn together: one alone costs nearly as much


@lru_cache(maxsize=512)  # about 35 KB each
def _block(seed: int, block: int) -> Scenes:
    return draw_scenes(BLOCK, (seed, block))


def _caption(seed: int, length: Length, index: int, scene: Scenes) -> str:
    return caption(scene[0], random.Random(f"{seed} {index}"), length=length)[0]


@lru_cache(maxsize=4)  # seconds and some 10 MB for all of a set, and runs ask for them again
def _captions(seed: int, length: Length, count: int) -> tuple[str, ...]:
    return tuple(
        _caption(
            seed, length, index, _block(seed, index // BLOCK)[(row := index % BLOCK) : row + 1]
        )
        for index in range(count)
    )


class ShapesWorld:
    """A training set of pictures and captions. Item i depends on the seed and i alone.

    Args:
        length: how much of a picture its caption tells.
        free: whether captions are told as people talk, in the words of `free.SEEN`.
    """

    def __init__(
        self, size: int = 100_000, seed: int = 0, length: Length = "mixed", *, free: bool = False
    ) -> None:
        self.count, self.seed, self.length, self.free = size, seed, length, free

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image, str]:
        """An RGB picture of SIZE x SIZE pixels and its caption."""
        return self.picture(index), self.caption(index)

    def picture(self, index: int, at_least: int | None = None) -> Image:
        """One item's picture, always of SIZE x SIZE pixels."""
        return pictures(self._scene(index))[0]

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of any picture."""
        return SIZE, SIZE

    def texts(self, index: int) -> list[str]:
        """The one caption of an item, as a list."""
        return [self.caption(index)]

    def where(self, index: int) -> str:
        """What names an item in messages."""
        return f"shapes:{index}"

    def identity(self) -> str:
        """What names the whole set: all of it follows from these."""
        told = "-free" if self.free else ""
        return f"shapes-{self.count}-{self.seed}-{self.length}{told}"

    def caption(self, index: int) -> str:
        """The caption of one item, without its picture."""
        plain = _caption(self.seed, self.length, index, self._scene(index))
        return self._retold(index, plain).text if self.free else plain

    def captions(self, count: int) -> list[str]:
        """The first `count` captions, without any picture."""
        if self.free:
            return [told.text for told in self.retold(count)]
        return self.plain_captions(count)

    def plain_captions(self, count: int) -> list[str]:
        """The same ones in the grammar of the world, which its image models' encoders read."""
        return list(_captions(self.seed, self.length, min(count, self.count)))

    def retold(self, count: int, **options: Any) -> list[Retold]:
        """The first `count` captions told freely; see `free.retell` for the options."""
        plain = _captions(self.seed, self.length, min(count, self.count))
        return [self._retold(index, text, **options) for index, text in enumerate(plain)]

    def _retold(self, index: int, plain: str, **options: Any) -> Retold:
        return retell(plain, random.Random(f"{self.seed} free {index}"), **options)

    def _scene(self, index: int) -> Scenes:
        """One item's scene, as a batch of one."""
        if not 0 <= index < self.count:
            raise IndexError(f"item {index} of a training set of {self.count}")
        block, row = divmod(index, BLOCK)
        return _block(self.seed, block)[row : row + 1]
