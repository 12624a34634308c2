"""Which words moved a picture: each left out, and each replaced by one that says nothing.

The same seed draws every variant, so what differs comes of the word. It works for every bridge and
image model, as nothing is looked up inside of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.errors import BridgeError

WORD = re.compile(r"\w+(?:['’-]\w+)*")
NEUTRAL = "thing"
MOST_WORDS = 200
"""Words of a prompt; each costs two pictures."""


@dataclass(frozen=True)
class Influence:
    """What one word did to a picture."""

    word: str
    start: int
    """Its first character in the prompt."""
    left_out: NDArray[np.float32]
    """(height, width) how far the picture moves where the word is left out, 0 to 1."""
    replaced: NDArray[np.float32]
    """The same where a neutral word stands in its place."""

    @property
    def change(self) -> float:
        """The mean of both over the picture, 0 to 1."""
        return float((self.left_out.mean() + self.replaced.mean()) / 2)


def influence(
    bridge: Bridge,
    prompt: str,
    *,
    seed: int = 0,
    neutral: str = NEUTRAL,
    on_picture: Callable[[], object] | None = None,
    **sampling: Any,
) -> tuple[Image.Image, list[Influence]]:
    """Draw a prompt and what it would have been without each of its words.

    Args:
        neutral: what stands in a word's place.
        on_picture: called after each of the 1 + 2 · words pictures.
        sampling: as in `Bridge.stream`.

    Returns:
        The picture, and its words in their order.

    Raises:
        BridgeError: the prompt has no word, or too many; or as `Bridge.stream` does.
    """
    words = list(WORD.finditer(prompt))
    if not words:
        raise BridgeError("a prompt without words has none that moves its picture")
    if len(words) > MOST_WORDS:
        raise BridgeError(f"the prompt has {len(words):,} words; {MOST_WORDS} at most are tried")
    asked = [prompt]
    for word in words:
        asked += [without(prompt, word.span()), without(prompt, word.span(), neutral)]
    drawn = []
    for image in bridge.stream(asked, seed=[seed] * len(asked), **sampling):
        drawn.append(image)
        if on_picture is not None:
            on_picture()
    first, others = drawn[0], [difference(drawn[0], image) for image in drawn[1:]]
    return first, [
        Influence(word[0], word.start(), others[2 * i], others[2 * i + 1])
        for i, word in enumerate(words)
    ]


def without(prompt: str, span: tuple[int, int], instead: str = "") -> str:
    """A prompt without the characters of a span, and without the blank that they leave."""
    before, after = prompt[: span[0]], prompt[span[1] :]
    if not instead and before.endswith(" "):
        before = before[:-1]
    return (before + instead + after).strip()


def difference(one: Image.Image, other: Image.Image) -> NDArray[np.float32]:
    """How far two pictures are apart, pixel by pixel: (height, width), 0 to 1."""
    pixels = [np.asarray(image.convert("RGB"), np.float32) / 255 for image in (one, other)]
    apart: NDArray[np.float32] = np.abs(pixels[0] - pixels[1]).mean(-1)
    return apart


def heat(image: Image.Image, words: Sequence[Influence], *, side: int = 256) -> Image.Image:
    """The picture, under it its words on a strip: the redder, the more it moved the picture.

    Args:
        side: width in pixels; a smaller picture is enlarged without smoothing.
    """
    font = ImageFont.load_default(14)
    most = max((word.change for word in words), default=0) or 1.0
    places, x, y = [], 4, 6
    for word in words:
        width = int(font.getlength(word.word)) + 8
        if x + width > side - 4 and x > 4:
            x, y = 4, y + 24
        places.append((x, y, width))
        x += width + 3
    height = round(side * image.height / image.width)
    sheet = Image.new("RGB", (side, height + y + 28), "white")
    smooth = Image.Resampling.LANCZOS if image.width >= side else Image.Resampling.NEAREST
    sheet.paste(image.convert("RGB").resize((side, height), smooth))
    draw = ImageDraw.Draw(sheet)
    for (left, top, width), word in zip(places, words, strict=True):
        share = word.change / most
        colour = (255, round(255 - 165 * share), round(255 - 185 * share))
        box = (left, height + top, left + width, height + top + 20)
        draw.rounded_rectangle(box, 4, fill=colour)
        draw.text((left + 4, height + top + 2), word.word, "black", font)
    return sheet
