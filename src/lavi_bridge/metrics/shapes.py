"""The shapes world's own metrics: the exact scorer, and how far pictures are from drawn scenes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.files.weights import Fingerprint
from lavi_bridge.metrics import METRICS, Distance, Score
from lavi_bridge.metrics.base import exact
from lavi_bridge.metrics.distances import frechet_distance
from lavi_bridge.prompts.catalogue import WORLD
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.shapes.grammar import Facts
from lavi_bridge.shapes.plain import stated
from lavi_bridge.shapes.scorer import score
from lavi_bridge.shapes.world import evaluation_set
from lavi_bridge.version import __version__
from lavi_bridge.visions import load_vision

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

NAMES = ("shapes", "shapes-facts", "shapes-fd")
"""They judge the suites of the shapes world alone."""
EXTRACTOR = "zoo:tiny-sd"
"""Whose autoencoder `shapes-fd` sees with."""


@METRICS.register("shapes")
class ExactShapes(Score):
    """1 where the image meets every fact of its prompt, and else 0."""

    title = "exact"
    needs = "suites shapes…"

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        return [float(one.exact) for one in score(images, [facts_of(p) for p in prompts])]

    def provenance(self) -> dict[str, str]:
        return {"scorer": f"the shapes world's own, of lavi-bridge {__version__}"}


@METRICS.register("shapes-facts")
class ShapesFacts(ExactShapes):
    """The share of the prompt's facts that the image meets."""

    title = "facts met"

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        return [one.partial for one in score(images, [facts_of(p) for p in prompts])]


@METRICS.register("shapes-fd")
class ShapesDistance(Distance):
    """Fréchet distance to drawn scenes in statistics of the bundled autoencoder's latents.

    Inception has never seen such pictures, so the world has an extractor of its own: of each of
    the latents' four channels the mean, the standard deviation, and the mean steps across and
    down, 16 features in all. It sees paper, contrast and edges, not what is drawn. Numbers compare
    with each other and with no published FID.
    """

    title = "Fréchet distance (zoo)"
    needs = "--reference, suites shapes…"

    def __init__(self) -> None:
        self.vision = load_vision(locate(EXTRACTOR), dtype=torch.float32)

    @exact()
    def features(self, images: Sequence[Image]) -> Tensor:
        side = self.vision.resolution
        arrays = [np.asarray(i.convert("RGB").resize((side, side)), np.float32) for i in images]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1
        means = self.vision.moments(pixels)[0]  # (images, channels, height, width)
        steps = means.diff(dim=-1).abs(), means.diff(dim=-2).abs()
        each = [means.mean((2, 3)), means.std((2, 3)), *(step.mean((2, 3)) for step in steps)]
        return torch.cat(each, 1)

    def distance(self, features: Tensor, reference: Tensor) -> float:
        return frechet_distance(features, reference)

    def provenance(self) -> dict[str, str]:
        text = f"the autoencoder of {EXTRACTOR}, "
        made = self.vision.fingerprint
        return {"scorer": Fingerprint(text + made, lambda: text + made.earlier)}


def facts_of(prompt: Prompt) -> Facts:
    """The facts of a prompt of the shapes world.

    Raises:
        BridgeError: it is of another suite.
    """
    told = prompt.facts
    if "plain" in told:
        return stated(told["plain"])
    try:
        place = told["per_category"], told["seed"], told["index"]
    except KeyError as error:
        raise BridgeError(
            f"prompt '{prompt.id}' is of no suite of the shapes world ({', '.join(WORLD)})"
        ) from error
    return _asked(*place[:2])[place[2]]


@lru_cache
def _asked(per_category: int, seed: int) -> tuple[Facts, ...]:
    return tuple(prompt.facts for prompt in evaluation_set(per_category, seed)[0])
