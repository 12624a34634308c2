"""The exact scorer of the shapes world as metrics: every fact of the prompt, or their share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from lavi_bridge import __version__
from lavi_bridge.errors import BridgeError
from lavi_bridge.metrics import METRICS, Score
from lavi_bridge.prompts import Prompt
from lavi_bridge.zoo.grammar import Facts
from lavi_bridge.zoo.scorer import score
from lavi_bridge.zoo.world import evaluation_set

if TYPE_CHECKING:
    from PIL.Image import Image


NAMES = ("shapes", "shapes-facts")
"""They judge the suite `shapes` alone."""


@METRICS.register("shapes")
class ExactShapes(Score):
    """1 where the image meets every fact of its prompt, and else 0."""

    title = "exact"

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


def facts_of(prompt: Prompt) -> Facts:
    """The facts of a prompt of the suite `shapes`.

    Raises:
        BridgeError: it is of another suite.
    """
    try:
        place = (prompt.facts["per_category"], prompt.facts["seed"], prompt.facts["index"])
    except KeyError as error:
        raise BridgeError(f"prompt '{prompt.id}' is none of the suite `shapes`") from error
    return _asked(*place[:2])[place[2]]


@lru_cache
def _asked(per_category: int, seed: int) -> tuple[Facts, ...]:
    return tuple(prompt.facts for prompt in evaluation_set(per_category, seed)[0])
