"""MIND against the integral of its definition, SciPy, and closed forms."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavi_bridge import BridgeError
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.mind import MIND, between, sliced_distance

Array = NDArray[np.float64]


def rows(count: int, width: int, *, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) + shift


def inverse(sample: Array, at: Array) -> Array:
    """The inverse distribution function of a sample: the least value that a share has or is under.

    NumPy's own, so that none of it is ours.
    """
    return np.quantile(sample, at, method="inverted_cdf")


@pytest.mark.parametrize(("n", "m"), [(5, 5), (5, 7), (12, 4)])
def test_between_samples_it_is_the_integral_of_inverse_distribution_functions(
    n: int, m: int
) -> None:
    rng = np.random.default_rng(n)
    first, second = rng.normal(size=(3, n)), rng.normal(1, 2, size=(3, m))
    parts = n * m * 2000
    at = (np.arange(parts) + 0.5) / parts  # both functions are constant over n · m equal parts
    expected = [
        np.mean((inverse(a, at) - inverse(b, at)) ** 2) for a, b in zip(first, second, strict=True)
    ]
    found = between(*(torch.from_numpy(np.sort(x)) for x in (first, second)))
    assert found.tolist() == pytest.approx(expected)


def test_a_shift_in_one_direction_is_its_square() -> None:
    """Along a unit vector u a shift by s moves by u·s, and the mean of (u·s)² is |s|² / width."""
    x = rows(400, 8, seed=0)
    shift = torch.tensor([3.0, 0, 0, 4, 0, 0, 0, 0])
    # 3 · width · |s|² / width; over 1,000 directions, within their own spread
    assert sliced_distance(x + shift, x) == pytest.approx(3 * 25, rel=0.1)
    assert sliced_distance(x, x) == 0
    assert sliced_distance(x, x[torch.randperm(400)]) == 0


def test_in_one_dimension_it_is_scipys_optimal_transport() -> None:
    """With one feature all directions are ±1, and a sample's optimal pairing is SciPy's."""
    from scipy.optimize import linear_sum_assignment
    from scipy.stats import wasserstein_distance

    x, y = rows(40, 1, seed=1), rows(40, 1, seed=2, shift=0.5)
    costs = (x - y.T).square().double().numpy()
    pairing = costs[linear_sum_assignment(costs)].mean()
    assert sliced_distance(x, y) == pytest.approx(3 * pairing, rel=1e-5)
    # of sets apart by a constant, the first Wasserstein distance squared is the second
    assert sliced_distance(x, x + 2) == pytest.approx(
        3 * wasserstein_distance(x[:, 0].numpy(), x[:, 0].numpy() + 2) ** 2, rel=1e-5
    )


def test_it_is_the_mean_over_the_published_directions() -> None:
    """As torch-fidelity has them: normal from seed 2020, in one draw, then of length 1."""
    x, y = rows(30, 6, seed=3), rows(30, 6, seed=4, shift=0.3)
    axes = torch.randn(1000, 6, generator=torch.Generator().manual_seed(2020))
    total = 0.0
    for axis in axes.numpy():
        unit = axis / np.linalg.norm(axis)
        total += np.mean((np.sort(x.numpy() @ unit) - np.sort(y.numpy() @ unit)) ** 2)
    assert sliced_distance(x, y) == pytest.approx(3 * 6 * total / 1000, rel=1e-4)
    assert sliced_distance(x, y) == pytest.approx(sliced_distance(y, x), rel=1e-6)


def test_the_larger_set_is_read_whole() -> None:
    """Every row twice is the same distribution, and no row is drawn."""
    x, y = rows(30, 6, seed=3), rows(20, 6, seed=4)
    twice = torch.cat([y, y])
    assert sliced_distance(x, twice) == pytest.approx(sliced_distance(x, y), rel=1e-5)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(BridgeError, match="width 3 and 2"):
        sliced_distance(torch.rand(5, 3), torch.rand(5, 2))


def test_the_metric_says_where_images_are_few_and_reads_fids_features() -> None:
    assert METRICS["mind"] is MIND
    metric = MIND(extractor=lambda pixels: pixels.mean((2, 3)))
    x, y = rows(30, 6, seed=3), rows(1000, 6, seed=4)
    assert metric.distance(x, y) == sliced_distance(x, y)
    assert metric.doubt(y, y) is None
    assert "MIND from 30 images is unreliable" in str(metric.doubt(y, x))
