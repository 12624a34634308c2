"""FD-DINOv2: a small random model of the real class, against its steps one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import layer_norm

from lavi_bridge import BridgeError
from lavi_bridge.files.weights import fingerprint
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.dino import FDDINOv2, positions
from lavi_bridge.metrics.distances import frechet_distance

PATCHES = 5  # a side that the tiny model was made for; at 224 pixels there are 16


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=14 * PATCHES,
        patch_size=14,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dinov2")
    model = Dinov2Model(config)
    for parameter in model.parameters():  # as made, tokens would hardly see each other
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (90, 300, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    return [picture, Image.new("RGB", (33, 64), "red"), picture.convert("L")]


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, as PyTorch's bicubic has it."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def interpolation(known: int, side: int) -> Tensor:
    """(side, known) weights of samples at (i + ½) · known / (side + 0.1) - ½; edges go on."""
    weights = torch.zeros(side, known)
    for row in range(side):
        at = (row + 0.5) * known / (side + 0.1) - 0.5
        for column in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[row, min(max(column, 0), known - 1)] += cubic(at - column)
    return weights


def test_features_are_the_class_token_step_by_step(dino: Path, pictures: list[Image.Image]) -> None:
    from transformers import Dinov2Model

    metric = METRICS["fd-dinov2"](scorer=dino)  # type: ignore[call-arg]
    assert isinstance(metric, FDDINOv2)
    model = Dinov2Model.from_pretrained(dino).eval()
    table = model.embeddings.position_embeddings[0]
    weights = interpolation(PATCHES, 16)
    grid = torch.einsum("ri,cj,ijw->rcw", weights, weights, table[1:].unflatten(0, (5, 5)))
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    expected = []
    with torch.no_grad():
        for picture in pictures:
            small = picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
            pixels = (torch.from_numpy(np.array(small)).float() / 255 - mean) / deviation
            kernel = model.embeddings.patch_embeddings.projection
            patches = pixels.unfold(0, 14, 14).unfold(1, 14, 14).flatten(2)
            seen = patches @ kernel.weight.flatten(1).T + kernel.bias + grid
            first = model.embeddings.cls_token[0] + table[:1]
            states = torch.cat([first, seen.flatten(0, 1)])[None]
            for layer in model.encoder.layer:
                states = layer(states)
            norm = model.layernorm
            expected.append(layer_norm(states[0, 0], (16,), norm.weight, norm.bias, norm.eps))
    found = metric.features(pictures)
    torch.testing.assert_close(found, torch.stack(expected), atol=2e-5, rtol=0)
    plain = model(pixel_values=torch.zeros(1, 3, 224, 224)).last_hidden_state[:, 0]
    ours = metric.model(torch.zeros(1, 3, 224, 224)).last_hidden_state[:, 0]
    assert (plain - ours).abs().max() > 2e-4  # transformers samples the positions elsewhere


def test_positions_of_the_models_own_size_stay() -> None:
    table = torch.randn(1, 1 + 16 * 16, 8)
    assert positions(table, 16) is table
    assert positions(torch.randn(1, 1 + 37 * 37, 8), 16).shape == (1, 257, 8)


def test_the_distance_is_frechets_and_says_where_images_are_few(dino: Path) -> None:
    metric = FDDINOv2(scorer=dino, device="cpu")
    x, y = torch.randn(30, 16), torch.randn(40, 16) + 1
    assert metric.distance(x, y) == frechet_distance(x, y)
    assert metric.doubt(x, y) is None
    assert "FD-DINOv2 from 16 images is unreliable" in str(metric.doubt(x[:16], y))
    found = metric.provenance()
    assert (found["scorer"], found["weights"]) == (str(dino), fingerprint(dino))


def test_weights_that_are_missing_or_anothers_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"'facebook/dinov2-large' .*a local folder"):
        FDDINOv2()
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(BridgeError, match="is no DINOv2, but 'vit'"):
        FDDINOv2(scorer=tmp_path)
