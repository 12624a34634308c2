"""The three ways to Inception's size, each against its definition written out another way."""

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge.metrics.inception.resizing import RESIZES, Resize, clean, pytorch, tf1
from tests.squeezenet import photos


def made(height: int = 23, width: int = 31) -> Image.Image:
    """Noise, the hardest picture to resize alike."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture(scope="module", params=["a made picture", "photos"])
def pictures(request: pytest.FixtureRequest) -> list[Image.Image]:
    if request.param == "photos":
        return photos(request.getfixturevalue("shared"), 3)
    return [made(), made(64, 48)]


def bilinear(image: Image.Image, side: int, *, offset: float) -> np.ndarray:
    """Pixel by pixel: output i lies at (i + offset) · size / side - offset of the input."""
    pixels = np.asarray(image, dtype=np.float64)
    height, width = pixels.shape[:2]
    output = np.empty((3, side, side))
    for i in range(side):
        y = max((i + offset) * height / side - offset, 0)
        top, down = int(y), min(int(y) + 1, height - 1)
        for j in range(side):
            x = max((j + offset) * width / side - offset, 0)
            left, right = int(x), min(int(x) + 1, width - 1)
            output[:, i, j] = (
                (1 - y % 1) * (1 - x % 1) * pixels[top, left]
                + (1 - y % 1) * (x % 1) * pixels[top, right]
                + (y % 1) * (1 - x % 1) * pixels[down, left]
                + (y % 1) * (x % 1) * pixels[down, right]
            )
    return output


def cubic(size: int, side: int) -> np.ndarray:
    """Weights (side, size) of an antialiased bicubic with a = -1/2: widened where it shrinks."""
    stretch = max(size / side, 1)
    middles = (np.arange(side) + 0.5) * size / side
    t = np.abs(np.arange(size)[None] + 0.5 - middles[:, None]) / stretch
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("side", [17, 40, 75])
def test_pytorch_lies_between_pixel_centres(pictures: list[Image.Image], side: int) -> None:
    for picture in pictures:
        expected = bilinear(picture, side, offset=0.5)
        np.testing.assert_allclose(pytorch(picture, side), expected, atol=2e-3)


@pytest.mark.parametrize("side", [17, 40, 75])
def test_tf1_lies_between_pixel_corners(pictures: list[Image.Image], side: int) -> None:
    for picture in pictures:
        expected = bilinear(picture, side, offset=0)
        np.testing.assert_allclose(tf1(picture, side), expected, atol=2e-3)


@pytest.mark.parametrize("side", [17, 40, 299])
def test_clean_is_an_antialiased_bicubic_of_each_channel(
    pictures: list[Image.Image], side: int
) -> None:
    for picture in pictures:
        channels = [
            np.asarray(channel.convert("F").resize((side, side), Image.Resampling.BICUBIC))
            for channel in picture.split()
        ]
        np.testing.assert_array_equal(clean(picture, side), np.clip(channels, 0, 255))
        pixels = np.asarray(picture, dtype=np.float64).transpose(2, 0, 1)
        down, across = cubic(picture.height, side), cubic(picture.width, side)
        expected = (down @ pixels @ across.T).clip(0, 255)
        np.testing.assert_allclose(clean(picture, side), expected, atol=2e-3)


@pytest.mark.parametrize("resize", RESIZES)
def test_every_way_takes_any_mode_and_keeps_the_range(resize: Resize) -> None:
    for mode in ("RGB", "L", "P", "RGBA", "1"):
        resized = RESIZES[resize](made().convert(mode), 299)
        assert resized.shape == (3, 299, 299)
        assert resized.dtype == torch.float32
        assert 0 <= resized.min() <= resized.max() <= 255
    flat = Image.new("RGB", (7, 9), (10, 20, 250))
    middle = RESIZES[resize](flat, 20)
    assert middle.amax((1, 2)).tolist() == pytest.approx([10, 20, 250], abs=1e-4)
    assert middle.amin((1, 2)).tolist() == pytest.approx([10, 20, 250], abs=1e-4)
    same = np.asarray(made(20, 20)).transpose(2, 0, 1)
    np.testing.assert_allclose(RESIZES[resize](made(20, 20), 20), same, atol=1e-3)


def test_only_one_way_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # every second column: grey from afar
    picture = Image.fromarray(stripes)
    assert clean(picture, 16).std() < 10
    assert pytorch(picture, 15).std() > 60
    assert tf1(picture, 16).std() == pytest.approx(0)  # and sees white columns alone
    assert tf1(picture, 16).mean() == 255
