"""From a picture to a training tensor, and the image sizes that batches come in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Size = tuple[int, int]
Framing = tuple[int, int, int, int]
"""What SDXL is told of a picture (arXiv 2307.01952, section 2.2): its original height and width,
and top and left of the crop in the resized picture."""


def to_pixels(
    picture: Image.Image,
    size: int | tuple[int, int],
    *,
    mirror: bool = False,
    corner: tuple[float, float] = (0.5, 0.5),
) -> Tensor:
    """RGB picture -> (3, height, width) uint8: resized bilinearly, cropped, perhaps mirrored.

    The picture is made as small as covers the crop; in one direction it fits exactly. With the
    default corner these are the operations of the published loader.

    Args:
        size: side, or width and height, of the crop in pixels.
        corner: where the crop lies between left and right, top and bottom (0 to 1).
    """
    target = (size, size) if isinstance(size, int) else size
    resized, (left, top) = _fitted(picture.size, target, corner)
    if picture.size != resized:
        picture = picture.resize(resized, Image.Resampling.BILINEAR)
    picture = picture.crop((left, top, left + target[0], top + target[1]))
    if mirror:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def framing(
    picture: Image.Image,
    size: Size,
    *,
    original: Size,
    mirror: bool = False,
    corner: tuple[float, float] = (0.5, 0.5),
) -> Framing:
    """What is told of the crop of `to_pixels`; `original` is the width and height of its file."""
    resized, (left, top) = _fitted(picture.size, size, corner)
    # as if the picture had been mirrored before the crop, as diffusers' training scripts do
    left = resized[0] - size[0] - left if mirror else left
    return original[1], original[0], top, left


def _fitted(have: Size, target: Size, corner: tuple[float, float]) -> tuple[Size, Size]:
    """The size that a picture is resized to, and left and top of the crop in that."""
    scales = [want / own for want, own in zip(target, have, strict=True)]
    scale = max(scales)
    # rounded down, as torchvision's Resize does; the side that decides fits exactly
    width, height = (
        want if factor == scale else max(want, int(own * scale))
        for want, own, factor in zip(target, have, scales, strict=True)
    )
    left, top = (
        round((own - want) * place)
        for own, want, place in zip((width, height), target, corner, strict=True)
    )
    return (width, height), (left, top)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 pixels -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def buckets(resolution: int, step: int, widest: float = 2.0) -> list[tuple[int, int]]:
    """Sizes (width, height) of about the area resolution², sides multiples of `step`.

    For every width the greatest height that does not exceed the area, up to an aspect ratio of
    `widest` either way; the square comes first.
    """
    found = {(resolution, resolution)}
    for width in range(step, int(resolution * math.sqrt(widest)) + step, step):
        height = resolution * resolution // width // step * step
        if height and max(width, height) / min(width, height) <= widest:
            found |= {(width, height), (height, width)}
    return sorted(found, key=lambda size: (size != (resolution, resolution), size))


def nearest_bucket(size: tuple[int, int], among: Sequence[tuple[int, int]]) -> int:
    """The number of the bucket whose aspect ratio is nearest, on a logarithmic scale."""
    aspect = math.log(size[0] / size[1])
    return min(range(len(among)), key=lambda i: abs(math.log(among[i][0] / among[i][1]) - aspect))
