"""FD-DINOv2: the Fréchet distance between two sets of images in the features of DINOv2.

Source: arXiv 2306.04675; layer6ai-labs/dgm-eval `models/dinov2.py`, with its defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place, locate
from lavi_bridge.files.pretrained import load_pretrained
from lavi_bridge.files.weights import fingerprint_of
from lavi_bridge.metrics.base import METRICS, Distance, exact
from lavi_bridge.metrics.distances import frechet_distance, frechet_error, too_few
from lavi_bridge.running.device import choose_device

if TYPE_CHECKING:
    from PIL.Image import Image

LARGE = "facebook/dinov2-large"
SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@METRICS.register("fd-dinov2")
class FDDINOv2(Distance):
    """Fréchet distance of the class token after the last normalisation, 1,024 features.

    Raises:
        BridgeError: the weights are missing, or are those of another model.
    """

    title = "FD-DINOv2"
    scorer = LARGE
    licence = "Apache-2.0"
    download = memory = 1.2

    def __init__(
        self, *, scorer: str | Path = LARGE, device: str | torch.device | None = None
    ) -> None:
        self.place = locate(scorer)
        self.device = choose_device(device)
        self.model = load_dinov2(self.place).to(self.device)

    @exact()
    def features(self, images: Sequence[Image]) -> Tensor:
        pixels = torch.stack([preprocessed(image) for image in images])
        return self.model(pixels.to(self.device)).last_hidden_state[:, 0].float().cpu()

    def distance(self, features: Tensor, reference: Tensor) -> float:
        return frechet_distance(features, reference)

    def error(self, features: Tensor, reference: Tensor, groups: Tensor) -> float:
        return frechet_error(features, reference, groups)

    def doubt(self, features: Tensor, reference: Tensor) -> str | None:
        return too_few(min(len(features), len(reference)), features.shape[1], self.title)

    def provenance(self) -> dict[str, str]:
        return {
            "scorer": self.place.id,
            "weights": fingerprint_of(self.place),
            "features": f"class token at {SIDE} pixels",
            **{name: version(name) for name in ("torch", "transformers", "pillow")},
        }


def preprocessed(image: Image) -> Tensor:
    """(3, 224, 224): by PIL's bicubic, aspect ratio ignored, rounded to whole greys, normalised."""
    from PIL.Image import Resampling

    resized = image.convert("RGB").resize((SIDE, SIDE), Resampling.BICUBIC)
    array = np.asarray(resized, dtype=np.float32) / 255
    scaled = (array - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return torch.from_numpy(scaled.transpose(2, 0, 1))


def load_dinov2(place: Place) -> Any:
    """A Dinov2Model in float32 that reads 224 pixels as Meta's own code does.

    Raises:
        BridgeError: it is missing, or another kind of model.
    """
    from transformers import Dinov2Model

    if (kind := place.json("config.json").get("model_type")) != "dinov2":
        raise BridgeError(f"'{place.id}' is no DINOv2, but '{kind}'; give one such as {LARGE}")
    model = load_pretrained(Dinov2Model, place, f"DINOv2 '{place.id}'", dtype=torch.float32)
    embeddings = model.embeddings
    table = positions(embeddings.position_embeddings.data, SIDE // model.config.patch_size)
    embeddings.position_embeddings = nn.Parameter(table)
    return model.eval().requires_grad_(False)


def positions(table: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + n², width) -> those of `side` patches a side, (1, 1 + side², …).

    Meta's code interpolates them by the factor (side + 0.1) / n, transformers by side / n, which
    samples other places. Source: facebookresearch/dinov2 `vision_transformer.py`.
    """
    first, rest = table[:, :1], table[:, 1:]
    known = round(rest.shape[1] ** 0.5)
    if known == side:
        return table
    grid = rest.unflatten(1, (known, known)).permute(0, 3, 1, 2)
    factor = (side + 0.1) / known
    resized = interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([first, resized.permute(0, 2, 3, 1).flatten(1, 2)], 1)
