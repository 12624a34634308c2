"""What the metrics by a judge share: which judge, in which mode, and answers that are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from lavi_bridge.errors import BridgeError
from lavi_bridge.metrics.base import Score
from lavi_bridge.metrics.compbench.quirks import Mode, checked
from lavi_bridge.metrics.judge.model import Judge, Reading
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.questions import KEY

if TYPE_CHECKING:
    from PIL.Image import Image

YES = ("Yes", "yes", " yes", " Yes")
NO = ("No", "no", " no", " No")
Asking = tuple[str, tuple[str, ...]]
"""A question, and the spellings of an answer."""


class ByJudge(Score):
    """A score that a judge gives.

    Args:
        judge: see `load_judge`.
        mode: `faithful` to the published script, or `fixed`; see each module's QUIRKS.

    Raises:
        BridgeError: there is no judge.
    """

    published: ClassVar[str]
    """The judge of the published numbers."""
    name: ClassVar[str]
    """As in `--metrics`."""
    asks: ClassVar[str]
    """The wording of a question."""

    def __init__(self, *, judge: Judge | None = None, mode: Mode = "faithful") -> None:
        if judge is None:
            raise BridgeError(
                f"{self.name} asks a judge: give --judge MODEL, an image-and-text model "
                f"(published numbers: {self.published})"
            )
        self.judge, self.mode = judge, checked(mode)
        # numbers of different judges are of different columns
        self.title = f"{type(self).title}, {judge.name}"  # type: ignore[misc]

    @property
    def reading(self) -> Reading:
        """How the judge's answers are read."""
        return "first token" if self.mode == "faithful" else "strings"

    needs = "--judge"

    @classmethod
    def questions(cls, prompt: Prompt, mode: Mode) -> list[Asking]:
        """What is asked about a picture of a prompt.

        Raises:
            BridgeError: nothing can be.
        """
        raise NotImplementedError

    def reads(self, prompt: Prompt) -> str:
        """Its text and its questions, with all that is said of them."""
        return json.dumps([prompt.text, prompt.facts.get(KEY)], sort_keys=True)

    def check(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            for _, spellings in self.questions(prompt, self.mode):
                for spelling in spellings:
                    self.judge.tokens(spelling)

    def provenance(self) -> dict[str, str]:
        return self.judge.provenance() | {
            "mode": self.mode,
            "reading": self.reading,
            "question": self.asks,
        }

    def answers(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[list[float]]:
        """Of every image's questions, the probability of the answer in any of its spellings.

        Those of the latest images are kept, so that metrics that ask the same share them.
        """
        asked = [self.questions(prompt, self.mode) for prompt in prompts]
        known = _LATEST.get(self.judge)
        key = [*map(id, images)], asked, self.reading
        if known is None or known.key != key:
            known = _LATEST[self.judge] = _Kept([*images], key, self._asked(images, asked))
        return known.answers

    def _asked(
        self, images: Sequence[Image], asked: Sequence[Sequence[Asking]]
    ) -> list[list[float]]:
        rows = [
            (
                image,
                question,
                spellings if self.reading == "first token" else self.judge.apart(spellings),
            )
            for image, mine in zip(images, asked, strict=True)
            for question, spellings in mine
        ]
        found = iter(
            self.judge.probabilities(
                [image for image, _, _ in rows],
                [question for _, question, _ in rows],
                [spellings for _, _, spellings in rows],
                reading=self.reading,
            )
        )
        return [[sum(next(found)) for _ in mine] for mine in asked]


class _Kept:
    """A judge's latest answers."""

    def __init__(self, images: list[Image], key: object, answers: list[list[float]]) -> None:
        self.images = images  # held, so that no other gets their id
        self.key = key
        self.answers = answers


_LATEST: WeakKeyDictionary[Judge, _Kept] = WeakKeyDictionary()
