"""MIND, the Monge Inception Distance: sliced optimal transport between two sets of features.

It has no covariance to estimate, so few thousand images do. Sources: arXiv 2605.06797 (May 2026);
toshas/torch-fidelity `metric_mind.py`, whose directions and seed these are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lavi_bridge.metrics.base import METRICS
from lavi_bridge.metrics.distances import FeatureDistance, comparable
from lavi_bridge.metrics.jackknife import spread

DIRECTIONS, SEED = 1000, 2020
AT_ONCE = 50
"""Directions whose projections are in memory together."""
FEW = 1000
"""Images under which the paper does not go."""


def sliced_distance(
    features: Tensor, reference: Tensor, *, directions: int = DIRECTIONS, seed: int = SEED
) -> float:
    """MIND of two sets of features (N, width), (M, width).

    3 · width times the mean over random directions of the squared 2-Wasserstein distance of the
    projections, ∫₀¹ (F⁻¹ - G⁻¹)². For sets of one size, as in the paper, that is the mean square
    between sorted projections. For others the integral is exact here, where torch-fidelity drops
    images at random from the larger set.

    Raises:
        BridgeError: as for `frechet_distance`.
    """
    x, y = comparable(features, reference)
    found = [
        between(_sorted(x, axes), _sorted(y, axes)) for axes in _axes(x.shape[1], directions, seed)
    ]
    return 3 * x.shape[1] * torch.cat(found).mean().item()


def sliced_error(
    features: Tensor,
    reference: Tensor,
    groups: Tensor,
    *,
    directions: int = DIRECTIONS,
    seed: int = SEED,
) -> float:
    """Standard error of `sliced_distance`; see `Distance.error`."""
    x, y = comparable(features, reference)
    parts = [groups != part for part in range(int(groups.max()) + 1)]
    totals = torch.zeros(len(parts), dtype=torch.float64)
    for axes in _axes(x.shape[1], directions, seed):
        ours, theirs = axes @ x.T, _sorted(y, axes)
        found = [between(ours[:, kept].sort().values, theirs).sum() for kept in parts]
        totals += torch.stack(found)
    return spread(3 * x.shape[1] * totals / directions)


def between(first: Tensor, second: Tensor) -> Tensor:
    """Sorted values (D, N), (D, M) -> squared 2-Wasserstein distances (D,), in float64.

    Both inverse distribution functions are constant between the fractions i / N and j / M.
    """
    n, m = first.shape[1], second.shape[1]
    if n == m:
        return (first - second).double().square().mean(1)
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    lengths = torch.diff(ends, prepend=ends.new_zeros(1)).double() / (n * m)
    gaps = first[:, (ends - 1) // m] - second[:, (ends - 1) // n]
    return gaps.double().square() @ lengths


def _sorted(rows: Tensor, axes: Tensor) -> Tensor:
    return (axes @ rows.T).sort().values


def _axes(width: int, count: int, seed: int) -> Iterator[Tensor]:
    """Random unit vectors (≤ 50, width), `count` in all."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.randn(count, width, generator=generator)
    yield from (axes / axes.norm(dim=1, keepdim=True)).split(AT_ONCE)


@METRICS.register("mind")
class MIND(FeatureDistance):
    """Sliced optimal transport in FID's features; see `sliced_distance`.

    Like FID it is larger with fewer images, so compare it at one number of images.
    """

    title = "MIND"

    def distance(self, features: Tensor, reference: Tensor) -> float:
        return sliced_distance(features, reference)

    def error(self, features: Tensor, reference: Tensor, groups: Tensor) -> float:
        return sliced_error(features, reference, groups)

    def doubt(self, features: Tensor, reference: Tensor) -> str | None:
        count = min(len(features), len(reference))
        if count >= FEW:
            return None
        return f"MIND from {count:,} images is unreliable: its paper uses 1,000 to 5,000"
