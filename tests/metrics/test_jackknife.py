"""How sure a distance is: the jackknife against its definition and against redrawn sets."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from lavi_bridge.metrics.cmmd import gaussian_distance, gaussian_error
from lavi_bridge.metrics.distances import (
    frechet_distance,
    frechet_error,
    kernel_distance,
    kernel_error,
)
from lavi_bridge.metrics.jackknife import groups_of, kernel_sums, spread
from lavi_bridge.metrics.mind import sliced_distance, sliced_error

DISTANCES: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "fréchet": (frechet_distance, frechet_error),
    "kid": (lambda x, y: kernel_distance(x, y)[0], kernel_error),
    "cmmd": (gaussian_distance, gaussian_error),
    "mind": (partial(sliced_distance, directions=50), partial(sliced_error, directions=50)),
}


def sets(count: int, *, seed: int, width: int = 4) -> Tensor:
    """Rows that are no Gaussian, apart from standard normal ones in mean and spread."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, width, generator=generator).exp() * torch.linspace(1, 2, width)


def reference(count: int, width: int = 4) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


def test_prompts_stay_whole_and_are_dealt_out() -> None:
    groups = groups_of([2, 1, 3])
    assert groups is not None
    assert groups.tolist() == [0, 0, 1, 2, 2, 2]
    many = groups_of([1] * 45)
    assert many is not None
    assert many.bincount().tolist() == [3] * 5 + [2] * 15
    assert groups_of([4, 4]) is None


def test_prompts_without_pictures_make_no_group() -> None:
    assert groups_of([4, 0, 0]) is None
    groups = groups_of([1, 0, 2, 0, 1])
    assert groups is not None
    assert groups.tolist() == [0, 1, 1, 2]


def test_of_a_mean_it_is_the_usual_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=30)
    without = [np.delete(values, n).mean() for n in range(30)]
    assert spread(without) == pytest.approx(values.std(ddof=1) / 30**0.5)


@pytest.mark.parametrize(
    ("name", "width"), [("fréchet", 4), ("fréchet", 40), ("cmmd", 4), ("mind", 4)]
)
def test_an_error_is_that_of_leaving_out_group_by_group(name: str, width: int) -> None:
    distance, error = DISTANCES[name]
    features, other = sets(31, seed=2, width=width), reference(60, width)
    groups = groups_of([1] * 31)
    assert groups is not None
    left = [distance(features[groups != part], other) for part in range(20)]
    assert error(features, other, groups) == pytest.approx(spread(left), rel=1e-4)


def test_kids_error_is_that_of_all_pairs_and_of_its_subsets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lavi_bridge.metrics import distances

    features, other = sets(30, seed=2), reference(30)
    groups = groups_of([1] * 30)
    assert groups is not None

    def whole(x: Tensor, y: Tensor) -> float:
        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return (a.double() @ b.double().T / 4 + 1) ** 3

        n, m = len(x), len(y)
        inner = (kernel(x, x).sum() - kernel(x, x).trace()) / (n * (n - 1))
        outer = (kernel(y, y).sum() - kernel(y, y).trace()) / (m * (m - 1))
        return (inner + outer - 2 * kernel(x, y).mean()).item()

    over_images = spread([whole(features[groups != part], other) for part in range(20)])
    assert kernel_error(features, other, groups) == pytest.approx(over_images)
    monkeypatch.setattr(distances, "SUBSET_SIZE", 10)
    over_subsets = kernel_distance(features, other)[1] / 10
    expected = (over_images**2 + over_subsets**2) ** 0.5
    assert kernel_error(features, other, groups) == pytest.approx(expected)


@pytest.mark.parametrize("name", DISTANCES)
def test_an_error_is_the_spread_over_redrawn_sets(name: str) -> None:
    distance, error = DISTANCES[name]
    other = reference(200)
    groups = groups_of([1] * 200)
    assert groups is not None
    drawn = [sets(200, seed=10 + n) for n in range(60)]
    true = np.std([distance(features, other) for features in drawn], ddof=1)
    found = np.mean([error(features, other, groups) for features in drawn[:10]])
    assert found == pytest.approx(true, rel=0.25)


def test_sums_of_a_kernel_are_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from lavi_bridge.metrics import jackknife

    x, y = sets(23, seed=3), reference(17)
    groups = torch.arange(23) % 5

    def product(a: Tensor, b: Tensor) -> Tensor:
        return a @ b.T

    whole = product(x, x)
    expected = torch.tensor(
        [[whole[groups == a][:, groups == b].sum() for b in range(5)] for a in range(5)]
    )
    seen: list[tuple[int, int]] = []

    def watched(a: Tensor, b: Tensor) -> Tensor:
        seen.append((len(a), len(b)))
        return product(a, b)

    monkeypatch.setattr(jackknife, "ROWS", 7)
    found = kernel_sums(watched, x, x, (groups, groups))
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-3)
    assert len(seen) == 4 + 3 + 2 + 1  # of 16 blocks, those on and above the diagonal
    assert max(map(max, seen)) == 7
    assert kernel_sums(product, x, y).item() == pytest.approx(product(x, y).sum().item(), rel=1e-5)
