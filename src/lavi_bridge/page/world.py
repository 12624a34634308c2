"""The exact score of one picture, where its prompt is one that the shapes world can judge."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from lavi_bridge.metrics.shapes import facts_of
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.shapes.plain import stated
from lavi_bridge.shapes.scenes import SIZE
from lavi_bridge.shapes.scorer import Verdict, score

if TYPE_CHECKING:
    from PIL.Image import Image

    from lavi_bridge.shapes.grammar import Facts


def verdict(image: Image, prompt: str) -> Verdict | None:
    """How well a picture meets its prompt; None where the scorer cannot say.

    It can for plain captions, and for the prompts of the suite `shapes-free`, at 64 pixels.
    """
    facts = facts_in(prompt)
    if facts is None or image.size != (SIZE, SIZE):
        return None
    return score([image], [facts])[0]


def facts_in(prompt: str) -> Facts | None:
    """What a prompt says of the shapes world; None where that is not known."""
    text = " ".join(prompt.split())
    try:
        return stated(text)
    except ValueError:
        return _told().get(text)


@lru_cache(maxsize=1)
def _told() -> dict[str, Facts]:
    """The prompts whose facts are known though they are not plain."""
    return {prompt.text: facts_of(prompt) for prompt in load_suite("shapes-free")}
