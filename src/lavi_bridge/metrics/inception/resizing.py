"""Three ways in which published FIDs make an image as large as Inception reads it.

They look alike and move FID by points, so a number means something only together with its way.
All three ignore the aspect ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 299
"""Pixels a side that Inception v3 reads."""

Resize = Literal["clean", "pytorch", "tf1"]


def clean(image: Image, side: int = SIDE) -> Tensor:
    """PIL's bicubic on each channel in float32, antialiased where it shrinks.

    Values are clipped to [0, 255], but not rounded.
    Source: GaParmar/clean-fid 0.1.35 `resize.py`, mode "clean" (arXiv 2104.11222).
    """
    from PIL import Image as Pictures

    planes = [Pictures.fromarray(plane) for plane in _pixels(image).numpy()]
    resized = [plane.resize((side, side), Pictures.Resampling.BICUBIC) for plane in planes]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in resized]).clip(0, 255))


def pytorch(image: Image, side: int = SIDE) -> Tensor:
    """Bilinear between pixel centres on values in [0, 1], without antialiasing.

    Source: mseitzer/pytorch-fid `inception.py`.
    """
    pixels = (_pixels(image) / 255)[None]
    resized = interpolate(pixels, (side, side), mode="bilinear", align_corners=False)
    return resized[0] * 255


def tf1(image: Image, side: int = SIDE) -> Tensor:
    """Bilinear between pixels' upper left corners on values in [0, 255], without antialiasing.

    Source: toshas/torch-fidelity `interpolate_compat_tensorflow.py`, after TensorFlow 1's
    `resize_bilinear`.
    """
    pixels = _pixels(image)
    for dim in (2, 1):  # columns, then rows, as TensorFlow does
        size = pixels.shape[dim]
        at = torch.arange(side) * torch.tensor(size / side, dtype=torch.float32)
        low = at.long()
        high = (low + 1).clamp(max=size - 1)
        share = (at - low).reshape(-1, *[1] * (2 - dim))
        first = pixels.index_select(dim, low)
        pixels = first + (pixels.index_select(dim, high) - first) * share
    return pixels


RESIZES: dict[Resize, Callable[[Image, int], Tensor]] = {
    "clean": clean,
    "pytorch": pytorch,
    "tf1": tf1,
}
"""Each makes a picture of any mode and size into (3, side, side), float32, in [0, 255]."""

MIDDLES: dict[Resize, float] = {"clean": 128.0, "pytorch": 127.5, "tf1": 128.0}
"""Inception reads (pixels - middle) / middle; the sources differ here, too."""


def _pixels(image: Image) -> Tensor:
    """(3, height, width), float32, whole numbers in [0, 255].

    Pillow's own way to RGB, as the sources have it: unlike in training, EXIF is not looked at,
    transparency is dropped, and greys of 16 bits are clipped, so scores stay comparable.
    """
    array = np.asarray(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(array.transpose(2, 0, 1).copy())
