"""From a picture to a training tensor, and the image sizes that batches come in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


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
    scales = [want / have for want, have in zip(target, picture.size, strict=True)]
    if picture.size != target:
        scale = max(scales)
        # rounded down, as torchvision's Resize does; the side that decides fits exactly
        width, height = (
            want if own == scale else max(want, int(have * scale))
            for want, have, own in zip(target, picture.size, scales, strict=True)
        )
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (
        round((have - want) * place)
        for have, want, place in zip(picture.size, target, corner, strict=True)
    )
    picture = picture.crop((left, top, left + target[0], top + target[1]))
    if mirror:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1).contiguous()


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
