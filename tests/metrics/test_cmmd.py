"""CMMD against a plain double loop, and its images as the published code prepares them."""

from math import exp
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.cmmd import CMMD, gaussian_distance, square
from tests.metrics.test_clip import embeddings, folder, pictures

__all__ = ["folder", "pictures"]  # fixtures: a tiny CLIP, three pictures


def units(count: int, *, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 24, generator=generator) + shift)


def looped(x: Tensor, y: Tensor) -> float:
    """1,000 · (mean k(x, x′) + mean k(y, y′) - 2 mean k(x, y)), every pair on its own."""

    def mean(first: Tensor, second: Tensor) -> float:
        rows, columns = first.double().tolist(), second.double().tolist()
        total = 0.0
        for a in rows:
            for b in columns:
                total += exp(-sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / (2 * 10**2))
        return total / (len(rows) * len(columns))

    return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def test_it_is_the_published_biased_estimator() -> None:
    x, y = units(21, seed=0), units(17, seed=1, shift=0.5)
    assert gaussian_distance(x, y) == pytest.approx(looped(x, y), rel=1e-4)
    assert gaussian_distance(x, y) == pytest.approx(gaussian_distance(y, x), rel=1e-6)
    assert gaussian_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_of_two_points_it_is_the_closed_form() -> None:
    """k(x, x) = k(y, y) = 1, and opposite unit vectors are 2 apart."""
    x = torch.tensor([[1.0, 0], [1.0, 0]])
    assert gaussian_distance(x, -x) == pytest.approx(1000 * (2 - 2 * exp(-4 / 200)), rel=1e-5)


def test_small_differences_survive_float32() -> None:
    """Of sets as like as these, 1 - k alone would lose half of its digits in float32."""
    x = units(40, seed=2)
    y = torch.nn.functional.normalize(x + 0.02 * units(40, seed=3))
    assert gaussian_distance(x, y) == pytest.approx(looped(x, y), rel=0.02)


def test_features_are_unit_embeddings_of_middle_squares(
    folder: Path, pictures: list[Image.Image]
) -> None:
    metric = METRICS["cmmd"](scorer=folder)  # type: ignore[call-arg]
    assert isinstance(metric, CMMD)
    middles = []
    for picture in pictures:  # cut by hand, for the steps of CLIP's own test
        width, height = picture.size
        array = np.asarray(picture.convert("RGB"))
        side = min(width, height)
        top, left = (height - side) // 2, (width - side) // 2
        middles.append(Image.fromarray(array[top : top + side, left : left + side]))
    expected, _ = embeddings(folder, middles)
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(metric.features(pictures), expected, atol=1e-5, rtol=1e-4)
    assert square(Image.new("L", (30, 70))).size == (30, 30)
    assert metric.provenance()["features"] == "unit vectors of middle squares"
    assert not metric.higher
