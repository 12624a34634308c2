"""How far two sets of images are apart in the features of a network: FID and KID.

The mathematics is torchmetrics' own, in float64; the network is Inception unless another is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.fetch import checksum
from lavi_bridge.metrics.base import METRICS, Distance, exact
from lavi_bridge.metrics.inception import network as inception
from lavi_bridge.metrics.inception.resizing import RESIZES, SIDE, Resize
from lavi_bridge.metrics.jackknife import kernel_sums, left_out, spread
from lavi_bridge.running.device import choose_device

if TYPE_CHECKING:
    from PIL.Image import Image

SUBSETS, SUBSET_SIZE = 100, 1000  # of KID, as in its paper's code and in torchmetrics


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """FID of two sets of features (N, width), (M, width): |μ₁-μ₂|² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½).

    Covariances are divided by N - 1. Source: arXiv 1706.08500, equation 6.

    Raises:
        BridgeError: the sets have fewer than two rows, other widths, or values that are not finite.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    features, reference = _doubles(features, reference)
    # what is given is whole: other processes of a run have nothing to add to it
    metric = FrechetInceptionDistance(feature=_Given(features.shape[1]), sync_on_compute=False)
    metric.update(reference, real=True)
    metric.update(features, real=False)
    return metric.compute().item()


def frechet_error(features: Tensor, reference: Tensor, groups: Tensor) -> float:
    """Standard error of `frechet_distance`; see `Distance.error`.

    tr (Σ₁Σ₂)^½ is that of the symmetric (Σ₂^½ Σ₁ Σ₂^½)^½, where the middle is the covariance of our
    rows times Σ₂^½. Σ₂ stays, and sums less a group's give the rest.
    """
    x, y = _doubles(features, reference)
    x, y = x - y.mean(0), y - y.mean(0)
    values, axes = torch.linalg.eigh(y.T @ y / (len(y) - 1))
    z = x @ (axes * values.clamp(min=0).sqrt() @ axes.T)
    squares, products = x.square().sum(1), z.T @ z
    found = []
    for group in range(int(groups.max()) + 1):
        kept = groups != group
        count = int(kept.sum())
        between = (x[kept].mean(0)).square().sum()
        trace = (squares[kept].sum() - count * between) / (count - 1)
        if count > x.shape[1]:
            mean = z[kept].mean(0)
            own = products - z[~kept].T @ z[~kept] - count * torch.outer(mean, mean)
            roots = torch.linalg.eigvalsh(own / (count - 1)).clamp(min=0).sqrt()
        else:  # fewer rows than features: as many eigenvalues are not 0
            centered = z[kept] - z[kept].mean(0)
            roots = torch.linalg.svdvals(centered) / (count - 1) ** 0.5
        found.append((between + trace - 2 * roots.sum()).item())
    return spread(found)


def kernel_distance(features: Tensor, reference: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """KID of two sets of features (N, width), (M, width): mean and standard deviation.

    The unbiased squared maximum mean discrepancy under the kernel (xᵀy / width + 1)³, over 100
    pairs of subsets of 1,000 rows, or of as many as both sets have. Where those are all the rows
    there is one pair to draw, and no deviation. Source: arXiv 1801.01401, section 4.

    Raises:
        BridgeError: as for `frechet_distance`.
    """
    from torchmetrics.image.kid import poly_mmd

    features, reference = _doubles(features, reference)
    size = min(SUBSET_SIZE, len(features), len(reference))
    draws = 1 if len(features) == len(reference) == size else SUBSETS
    generator = torch.Generator().manual_seed(seed)

    def subset(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:size]]

    values = torch.stack([poly_mmd(subset(reference), subset(features)) for _ in range(draws)])
    return values.mean().item(), values.std(correction=0).item()


def kernel_error(
    features: Tensor, reference: Tensor, groups: Tensor, *, deviation: float | None = None
) -> float:
    """Standard error of `kernel_distance`'s mean; see `Distance.error`.

    That of the discrepancy between all rows, and that of drawing subsets from them.

    Args:
        deviation: the one that `kernel_distance` gives; found anew where it is not known.
    """
    if deviation is None:
        deviation = kernel_distance(features, reference)[1]
    x, y = _doubles(features, reference)
    within = kernel_sums(cubic, x, x, (groups, groups))
    between = kernel_sums(cubic, x, y, (groups, None))
    alone = (x.square().mean(1) + 1) ** 3
    diagonal = torch.zeros(len(within), dtype=alone.dtype).index_add_(0, groups, alone)
    over_images = spread(left_out(within, between, groups, len(y), diagonal=diagonal))
    over_subsets = deviation / SUBSETS**0.5
    return (over_images**2 + over_subsets**2) ** 0.5


def cubic(first: Tensor, second: Tensor) -> Tensor:
    """KID's kernel (xᵀy / width + 1)³ of rows (n, width), (m, width) -> (n, m)."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def too_few(count: int, width: int, title: str = "FID") -> str | None:
    """What to tell the user where `count` images cannot give FID a covariance; None where they can.

    Args:
        count: images in the smaller set.
        width: of the features.
    """
    if count > width:
        return None
    return (
        f"{title} from {count:,} images is unreliable: a covariance of {width:,} features needs "
        f"more than {width:,} images; use KID (--metrics kid), or more images"
    )


_LOADED: WeakValueDictionary[tuple[str, str, torch.device], nn.Module] = WeakValueDictionary()
"""FID and KID share a network."""


class FeatureDistance(Distance):
    """A distance in the features of a network.

    Args:
        extractor: pixels (N, 3, 299, 299) in [0, 255], float32, on `device` -> features
            (N, width); the published Inception by default.
        weights: Inception's file; by default that in the cache folder, fetched if need be.
        resize: how images are made 299 pixels high and wide; see `resizing`.

    Raises:
        BridgeError: Inception's weights are missing, or the convention is unknown.
    """

    scorer = inception.FILE
    licence = "Apache-2.0"
    download = memory = 0.1
    extractor: Callable[[Tensor], Tensor]

    def __init__(
        self,
        *,
        extractor: Callable[[Tensor], Tensor] | None = None,
        weights: str | Path | None = None,
        resize: Resize = "clean",
        device: str | torch.device | None = None,
    ) -> None:
        if resize not in RESIZES:
            raise BridgeError(f"unknown resize '{resize}'; known: {', '.join(RESIZES)}")
        self.resize = resize
        self.device = choose_device(device)
        if extractor is None:
            path = inception.weights_file(weights)
            key = (str(path), resize, self.device)
            network = _LOADED.get(key) or inception.published(path, resize=resize).to(self.device)
            self.extractor = _LOADED[key] = network
            self._weights = {"scorer": self.scorer, "weights": checksum(path)[:16]}
        else:
            self.extractor = extractor
            name = getattr(extractor, "__name__", type(extractor).__name__)
            self._weights = {"scorer": f"{name}, not the published Inception"}

    @exact()
    def features(self, images: Sequence[Image]) -> Tensor:
        """Images -> features (images, width), float32, on the CPU."""
        pixels = torch.stack([RESIZES[self.resize](image, SIDE) for image in images])
        return self.extractor(pixels.to(self.device)).float().cpu()

    def provenance(self) -> dict[str, str]:
        versions = {name: version(name) for name in ("torch", "torchmetrics", "pillow")}
        return self._weights | {"resize": self.resize} | versions


@METRICS.register("fid")
class FID(FeatureDistance):
    """Fréchet distance between the sets, each taken for a Gaussian; see `frechet_distance`."""

    title = "FID"

    def distance(self, features: Tensor, reference: Tensor) -> float:
        return frechet_distance(features, reference)

    def error(self, features: Tensor, reference: Tensor, groups: Tensor) -> float:
        return frechet_error(features, reference, groups)

    def doubt(self, features: Tensor, reference: Tensor) -> str | None:
        return too_few(min(len(features), len(reference)), features.shape[1])


@METRICS.register("kid")
class KID(FeatureDistance):
    """Kernel distance, which is unbiased with few images, too; see `kernel_distance`."""

    title = "KID"

    def distance(self, features: Tensor, reference: Tensor) -> float:
        """The mean over subsets that seed 0 draws; `kernel_distance` also gives their deviation."""
        return kernel_distance(features, reference)[0]

    def error(self, features: Tensor, reference: Tensor, groups: Tensor) -> float:
        return kernel_error(features, reference, groups)

    def value_and_error(
        self, features: Tensor, reference: Tensor, groups: Tensor
    ) -> tuple[float, float]:
        # subsets are most of the work: both are of the same ones
        value, deviation = kernel_distance(features, reference)
        return value, kernel_error(features, reference, groups, deviation=deviation)


class _Given(nn.Module):
    """Features in place of the images that torchmetrics would take them from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def comparable(features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The two sets, if they can be compared.

    Raises:
        BridgeError: they have fewer than two rows, other widths, or values that are not finite.
    """
    for rows in (features, reference):
        if len(rows) < 2:
            raise BridgeError(f"a distance needs at least two images in each set, got {len(rows)}")
        if not rows.isfinite().all():
            raise BridgeError("the extractor gave features that are not finite")
    if features.shape[1] != reference.shape[1]:
        raise BridgeError(
            f"features of width {features.shape[1]} and {reference.shape[1]}: "
            "both sets need the same extractor"
        )
    return features, reference


def _doubles(features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, which the root of a covariance needs."""
    features, reference = comparable(features, reference)
    return features.double(), reference.double()
