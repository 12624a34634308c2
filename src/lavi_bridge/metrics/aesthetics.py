"""LAION's aesthetic scores: small heads on CLIP's embedding of an image, about 1 to 10."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home, read_pickle
from lavi_bridge.files.fetch import checksum, fetched
from lavi_bridge.metrics.base import METRICS, Score
from lavi_bridge.metrics.clip import LARGE, load_clip
from lavi_bridge.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

GITHUB = "https://raw.githubusercontent.com"

Layers = Sequence[tuple[Tensor, Tensor]]
"""Weight (out, in) and bias (out,) of each layer, in order."""


@torch.no_grad()
def aesthetic(embeddings: Tensor, layers: Layers) -> Tensor:
    """CLIP's image embeddings (N, width) -> scores (N,): normalised, then layer after layer.

    There is nothing between the layers of either version. Sources: LAION-AI/aesthetic-predictor
    notebook, christophschuhmann/improved-aesthetic-predictor `simple_inference.py`.
    """
    x = normalize(embeddings, dim=1)
    for weight, bias in layers:
        x = linear(x, weight, bias)
    return x[:, 0]


class Aesthetic(Score):
    """How much people would like an image, its prompt apart.

    Args:
        scorer: the CLIP whose embeddings are judged.
        head: file of the head; by default the published one for that CLIP, from the cache folder,
            fetched if need be.

    Raises:
        BridgeError: CLIP or head are missing, damaged, or do not fit.
    """

    scorer = LARGE
    download = memory = 1.7
    files = ("head",)
    folder: ClassVar[str]
    """Public folder of the heads, at a commit."""
    heads: ClassVar[dict[tuple[int, int, int], tuple[str, str]]]
    """Width of the embedding, patch size and image size of a CLIP -> its head's file, sha256."""

    def __init__(
        self,
        *,
        scorer: str | Path = LARGE,
        head: str | Path | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.clip = load_clip(scorer, device)
        self.head = at_home(head) if head else self._published()
        self.layers = read_head(self.head, self.clip.width)

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        return aesthetic(self.clip.image_embeddings(images), self.layers).tolist()

    def provenance(self) -> dict[str, str]:
        return self.clip.provenance() | {
            "head": self.head.name,
            "head weights": checksum(self.head)[:16],
        }

    def _published(self) -> Path:
        sees = self.clip.model.config.vision_config
        found = self.heads.get((self.clip.width, sees.patch_size, sees.image_size))
        if found is None:
            raise BridgeError(
                f"no head of {self.title} was published for '{self.clip.place.id}'; "
                f"use {LARGE}, or give a head"
            )
        file, sha256 = found
        return fetched(file, url=f"{self.folder}/{file}", sha256=sha256)


@METRICS.register("aesthetic-v1")
class AestheticV1(Aesthetic):
    """One linear layer."""

    title = "Aesthetics v1"
    licence = "MIT"
    folder = f"{GITHUB}/LAION-AI/aesthetic-predictor/6d122adad522ab246644d9dc1c6d7a3810ee255f"
    heads = {
        (768, 14, 224): (
            "sa_0_4_vit_l_14_linear.pth",
            "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        ),
        (512, 32, 224): (
            "sa_0_4_vit_b_32_linear.pth",
            "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
        ),
        (512, 16, 224): (
            "sa_0_4_vit_b_16_linear.pth",
            "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
        ),
    }


@METRICS.register("aesthetic-v2")
class AestheticV2(Aesthetic):
    """Layers 768 → 1024 → 128 → 64 → 16 → 1, trained on SAC, logos and AVA."""

    title = "Aesthetics v2"
    licence = "MIT; the head Apache-2.0"
    folder = (
        f"{GITHUB}/christophschuhmann/improved-aesthetic-predictor"
        "/6934dd81792f086e613a121dbce43082cb8be85e"
    )
    heads = {
        (768, 14, 224): (
            "sac+logos+ava1-l14-linearMSE.pth",
            "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        )
    }


def read_head(path: Path, width: int) -> Layers:
    """The layers of a head that reads embeddings of `width`; dropout has no weights.

    Raises:
        BridgeError: the file is missing or damaged, or its layers do not lead from `width` to 1.
    """
    state = read_pickle(path)
    tensors = [tensor.float() for tensor in state.values()]
    layers = list(zip(tensors[::2], tensors[1::2], strict=False))
    shapes = [tuple(tensor.shape) for tensor in tensors]
    widths = [width, *(len(bias) for _, bias in layers)]
    needed = [shape for n, m in pairwise(widths) for shape in ((m, n), (m,))]
    if shapes != needed or widths[-1] != 1:
        raise BridgeError(
            f"{path} is no aesthetic head for embeddings of {width}: it holds {shapes[:4]}"
        )
    return layers
