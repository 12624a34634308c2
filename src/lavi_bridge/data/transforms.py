"""From a picture to a training tensor, with the operations of the published loader."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pixels(picture: Image.Image, resolution: int, *, mirror: bool = False) -> Tensor:
    """RGB picture -> (3, resolution, resolution) in [-1, 1].

    The shorter side is resized bilinearly, the centre is cropped, then mirrored if asked for.
    """
    width, height = picture.size
    if min(width, height) != resolution:
        scale = resolution / min(width, height)
        # the longer side is rounded down, as torchvision's Resize does
        width, height = (resolution if side == min(picture.size) else int(side * scale)
                         for side in picture.size)  # fmt: skip
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    picture = picture.crop((left, top, left + resolution, top + resolution))
    if mirror:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    array = np.asarray(picture, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
