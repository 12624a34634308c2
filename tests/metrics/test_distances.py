"""FID and KID against independent computations, and the network of the published FID."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lavi_bridge import BridgeError
from lavi_bridge.metrics import METRICS, Distance
from lavi_bridge.metrics.distances import (
    FID,
    KID,
    frechet_distance,
    kernel_distance,
    too_few,
)
from lavi_bridge.metrics.inception.network import FILE, URL, Inception, published
from lavi_bridge.metrics.inception.resizing import Resize
from tests.squeezenet import photos, squeezenet


def gaussian(count: int, means: Sequence[float], deviations: Sequence[float]) -> Tensor:
    """Rows whose mean is exactly `means` and whose covariance is exactly diagonal."""
    noise = torch.randn(count, len(means), dtype=torch.float64)
    axes, _ = torch.linalg.qr(noise - noise.mean(0))
    return axes * (count - 1) ** 0.5 * torch.tensor(deviations) + torch.tensor(means)


def correlated(count: int, width: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, width) @ torch.randn(width, width) / width**0.5 + shift


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# ---- FID


def test_fid_of_gaussians_is_the_closed_form() -> None:
    first = gaussian(500, [0, 1, 2, 3], [1, 2, 3, 4])
    second = gaussian(300, [1, 1, 0, 3], [2, 2, 1, 0.5])
    # |μ₁-μ₂|² = 1 + 0 + 4 + 0, and the deviations differ by -1, 0, 2, 3.5
    assert frechet_distance(first, second) == pytest.approx(5 + 1 + 0 + 4 + 12.25, rel=1e-9)
    assert frechet_distance(first, first + 2) == pytest.approx(4 * 4, rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_fid_agrees_with_scipys_matrix_root() -> None:
    from scipy.linalg import sqrtm

    first, second = correlated(400, 64), correlated(300, 64, shift=0.1)
    one, two = np.cov(first.numpy(), rowvar=False), np.cov(second.numpy(), rowvar=False)
    between = first.numpy().mean(0) - second.numpy().mean(0)
    expected = between @ between + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4)


def test_fid_agrees_with_torchmetrics_fed_with_images_in_batches() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    images = torch.randint(0, 256, (2, 90, 3, 8, 8), dtype=torch.uint8)
    images[1] //= 2
    pool = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())

    class Extractor(nn.Module):
        num_features = 12

        def forward(self, batch: Tensor) -> Tensor:
            return pool(batch.double())

    metric = FrechetInceptionDistance(feature=Extractor())
    for real, rows in enumerate(images):
        for batch in rows.split(25):
            metric.update(batch, real=bool(real))
    ours = frechet_distance(pool(images[0].double()), pool(images[1].double()))
    assert ours == pytest.approx(metric.compute().item(), rel=1e-4)


def test_fid_of_too_few_images_is_warned_of() -> None:
    assert too_few(2049, 2048) is None
    assert re.search(r"2,048 images .*covariance of 2,048 .*KID", str(too_few(2048, 2048)))
    assert np.isfinite(frechet_distance(correlated(20, 64), correlated(30, 64)))


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_sets_that_cannot_be_compared_are_refused(distance) -> None:  # type: ignore[no-untyped-def]
    rows = torch.rand(5, 3)
    with pytest.raises(BridgeError, match="at least two images in each set, got 1"):
        distance(rows, rows[:1])
    with pytest.raises(BridgeError, match="width 3 and 2: both sets need the same extractor"):
        distance(rows, rows[:, :2])
    with pytest.raises(BridgeError, match="not finite"):
        distance(rows, rows / 0)


# ---- KID


def unbiased_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimator with the kernel of arXiv 1801.01401, term by term."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    between = sum(kernel(a, b) for a in x for b in y)
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)


def test_kid_is_the_unbiased_discrepancy() -> None:
    first, second = correlated(60, 16), correlated(60, 16, shift=0.3)
    expected = unbiased_mmd(first.double().numpy(), second.double().numpy())
    assert kernel_distance(first, second) == (pytest.approx(expected, rel=1e-4), 0)


def test_kid_of_larger_sets_is_the_mean_over_seeded_subsets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lavi_bridge.metrics import distances

    monkeypatch.setattr(distances, "SUBSET_SIZE", 12)
    monkeypatch.setattr(distances, "SUBSETS", 7)
    first, second = correlated(40, 8).double(), correlated(30, 8, shift=0.3).double()
    generator = torch.Generator().manual_seed(3)
    values = []
    for _ in range(7):
        y = second[torch.randperm(30, generator=generator)[:12]]
        x = first[torch.randperm(40, generator=generator)[:12]]
        values.append(unbiased_mmd(x.numpy(), y.numpy()))
    found = kernel_distance(first, second, seed=3)
    assert found == (pytest.approx(np.mean(values), rel=1e-4), pytest.approx(np.std(values)))
    assert kernel_distance(first, second, seed=3) == found != kernel_distance(first, second)


def test_kid_leaves_the_callers_randomness_alone() -> None:
    before = torch.random.get_rng_state()
    kernel_distance(torch.ones(5, 2), torch.zeros(1200, 2))
    assert torch.equal(before, torch.random.get_rng_state())


# ---- Inception


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file such as the published one, with random weights that keep signals in size."""
    model = Inception()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    path = tmp_path_factory.mktemp("inception") / FILE
    torch.save(model.state_dict(), path)
    return path


def test_the_layers_are_those_of_the_published_file() -> None:
    state = {name: value for name, value in Inception().state_dict().items() if "num_" not in name}
    # at four bytes each all of the published file's 95,628,359 but a tenth of a percent
    assert sum(value.numel() for value in state.values()) == 23_885_392
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert len(shapes) == 94 * 5 + 2  # convolution and four of its normalisation; the classifier
    assert shapes["Conv2d_2b_3x3.conv.weight"] == (64, 32, 3, 3)
    assert shapes["Mixed_5b.branch_pool.bn.running_var"] == (32,)
    assert shapes["Mixed_6a.branch3x3.conv.weight"] == (384, 288, 3, 3)
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7a.branch7x7x3_4.conv.weight"] == (192, 192, 3, 3)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert shapes["fc.weight"] == (1008, 2048)


def test_the_pools_are_those_of_tensorflow() -> None:
    model, ones = Inception(), torch.ones(1, 1, 4, 4)
    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
        pool = model.get_submodule(f"Mixed_{name}.pool")
        assert torch.equal(pool(ones), ones)  # an edge's average leaves the padding out
        assert pool(torch.arange(16.0).reshape(1, 1, 4, 4))[0, 0, 0, 0] == (0 + 1 + 4 + 5) / 4
    last = model.get_submodule("Mixed_7c.pool")
    assert last(torch.arange(16.0).reshape(1, 1, 4, 4))[0, 0, 0, 0] == 5


@pytest.mark.slow
def test_a_saved_network_loads_strictly_and_gives_the_same_features(inception: Path) -> None:
    pixels = torch.rand(2, 3, 299, 299) * 255
    again = Inception().eval()
    again.load_state_dict(torch.load(inception, weights_only=True))
    with torch.no_grad():
        features = published(inception)(pixels)
        assert features.shape == (2, 2048)
        assert features.std() > 0.01
        assert torch.equal(features, again(pixels))
        # pytorch-fid maps 255 to 1, the others 256
        scaled = (pixels / 255) * 256 + (128 - 127.5 / 255 * 256)
        other = published(inception, resize="pytorch")(pixels)
        torch.testing.assert_close(other, again(scaled), rtol=1e-3, atol=1e-3)


def test_files_that_are_not_the_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"none\.pth is missing"):
        FID(weights=tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("<html>404</html>")
    with pytest.raises(BridgeError, match=r"text\.pth is missing, damaged or no file of weights"):
        FID(weights=tmp_path / "text.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BridgeError, match=rf"other\.pth is not the Inception of FID .*{URL}"):
        FID(weights=tmp_path / "other.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(BridgeError, match="something else than named tensors"):
        FID(weights=tmp_path / "list.pth")


def test_without_the_weights_it_says_where_they_come_from_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path))
    with pytest.raises(BridgeError, match=rf"download {URL} and put it at {tmp_path / FILE}"):
        FID()


# ---- the metrics


def mean_colour(pixels: Tensor) -> Tensor:
    return pixels.mean((2, 3))


@pytest.mark.parametrize(("name", "kind"), [("fid", FID), ("kid", KID)])
def test_a_metric_takes_images_and_any_extractor(name: str, kind: type[Distance]) -> None:
    assert METRICS[name] is kind
    metric = kind(extractor=mean_colour)  # type: ignore[call-arg]
    colours = [(10, 20, 30), (0, 255, 7), (9, 9, 9)]
    images = [Image.new("RGB", (40 + 3 * n, 30), colour) for n, colour in enumerate(colours)]
    features = metric.features(images)
    torch.testing.assert_close(features, torch.tensor(colours).float(), rtol=0, atol=1e-3)
    first, second = correlated(20, 4), correlated(20, 4)
    expected = {"fid": frechet_distance(first, second), "kid": kernel_distance(first, second)[0]}
    assert metric.distance(first, second) == expected[name]
    assert not metric.higher


def test_provenance_names_the_weights_and_the_convention(inception: Path) -> None:
    found = FID(weights=inception, resize="tf1", device="cpu").provenance()
    assert found["scorer"] == FILE
    assert found["weights"] == hashlib.sha256(inception.read_bytes()).hexdigest()[:16]
    assert found["resize"] == "tf1"
    assert found["torchmetrics"].startswith("1.")
    given = KID(extractor=mean_colour).provenance()
    assert given["scorer"] == "mean_colour, not the published Inception"
    with pytest.raises(BridgeError, match="unknown resize 'cubic'; known: clean, pytorch, tf1"):
        FID(extractor=mean_colour, resize="cubic")  # type: ignore[arg-type]


@pytest.mark.slow
def test_conventions_move_a_distance_of_photos(shared: Path) -> None:
    network, pictures = squeezenet(shared), photos(shared, 16)

    def features(resize: Resize) -> Tensor:
        metric = KID(extractor=network, resize=resize, device="cpu")
        return metric.features(pictures)

    clean, tf1 = features("clean"), features("tf1")
    assert clean.shape == (16, 512)
    assert frechet_distance(clean, tf1) > 1
    assert frechet_distance(clean, clean) == pytest.approx(0, abs=0.1)
