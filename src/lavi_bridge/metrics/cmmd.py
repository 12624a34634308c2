"""CMMD: the maximum mean discrepancy between CLIP's embeddings of two sets of images.

Source: arXiv 2401.09603; google-research/google-research `cmmd/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lavi_bridge.metrics.base import METRICS, Distance
from lavi_bridge.metrics.clip import load_clip
from lavi_bridge.metrics.distances import comparable
from lavi_bridge.metrics.jackknife import kernel_sums, left_out, spread

if TYPE_CHECKING:
    from PIL.Image import Image

LARGE_336 = "openai/clip-vit-large-patch14-336"
SIGMA, SCALE = 10.0, 1000.0


def gaussian_distance(features: Tensor, reference: Tensor) -> float:
    """CMMD of two sets of features (N, width), (M, width): 1,000 times the squared discrepancy.

    The kernel is exp(-|x - y|² / 2σ²) with σ = 10. As published this is the biased estimator: a
    row's pair with itself counts, so that it is never negative and 0 for a set with itself.

    Raises:
        BridgeError: as for `frechet_distance`.
    """
    x, y = (rows.float() for rows in comparable(features, reference))
    within, across = kernel_sums(gaussian, x, x), kernel_sums(gaussian, x, y)
    other = kernel_sums(gaussian, y, y)
    value = within / len(x) ** 2 + other / len(y) ** 2 - 2 * across / (len(x) * len(y))
    return SCALE * value.item()


def gaussian_error(features: Tensor, reference: Tensor, groups: Tensor) -> float:
    """Standard error of `gaussian_distance`; see `Distance.error`."""
    x, y = (rows.float() for rows in comparable(features, reference))
    within = kernel_sums(gaussian, x, x, (groups, groups))
    across = kernel_sums(gaussian, x, y, (groups, None))
    return SCALE * spread(left_out(within, across, groups, len(y)))


def gaussian(first: Tensor, second: Tensor) -> Tensor:
    """The kernel less 1 of rows (n, width), (m, width) -> (n, m).

    Between unit vectors it is within 0.02 of 1. The discrepancy does not change with the 1 taken
    off, and float32 keeps five digits more.
    """
    squares = first.square().sum(1)[:, None] + second.square().sum(1) - 2 * first @ second.T
    return torch.expm1(-squares.clamp(min=0) / (2 * SIGMA**2))


@METRICS.register("cmmd")
class CMMD(Distance):
    """Discrepancy of CLIP ViT-L/14's embeddings at 336 pixels; see `gaussian_distance`.

    An image's middle square is taken and then resized by PIL's bicubic, as published; the published
    code also drops the images that do not fill a last batch, which this does not.
    """

    title = "CMMD"
    scorer = LARGE_336
    licence = "MIT"
    download = memory = 1.7

    def __init__(
        self, *, scorer: str | Path = LARGE_336, device: str | torch.device | None = None
    ) -> None:
        self.clip = load_clip(scorer, device)

    def features(self, images: Sequence[Image]) -> Tensor:
        embeddings = self.clip.image_embeddings([square(image) for image in images])
        return normalize(embeddings, dim=1).float()

    def distance(self, features: Tensor, reference: Tensor) -> float:
        return gaussian_distance(features, reference)

    def error(self, features: Tensor, reference: Tensor, groups: Tensor) -> float:
        return gaussian_error(features, reference, groups)

    def provenance(self) -> dict[str, str]:
        return self.clip.provenance() | {"features": "unit vectors of middle squares"}


def square(image: Image) -> Image:
    """The middle of an image, as high as wide, in RGB."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.convert("RGB").crop((left, top, left + side, top + side))
