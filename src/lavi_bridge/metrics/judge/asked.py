"""What the metrics by a judge share: which judge, in which mode, and answers that are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from lavi_bridge.errors import BridgeError
from lavi_bridge.metrics.base import METRICS, Score
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
    asks: ClassVar[str]
    """The wording of a question."""

    def __init__(self, *, judge: Judge | None = None, mode: Mode = "faithful") -> None:
        if judge is None:
            (name,) = METRICS.families()[type(self)]
            raise BridgeError(
                f"{name} asks a judge: give --judge MODEL, an image-and-text model "
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
        """Ask each question about a picture once, however many of its answers are wanted.

        Raises:
            BridgeError: an answer's probability is no number.
        """
        wanted = [
            [
                (text, each if self.reading == "first token" else self.judge.apart(each))
                for text, each in mine
            ]
            for mine in asked
        ]
        rows: dict[tuple[int, str], dict[str, None]] = {}
        for place, mine in enumerate(wanted):
            for text, each in mine:
                rows.setdefault((place, text), {}).update(dict.fromkeys(each))
        found = self.judge.probabilities(
            [images[place] for place, _ in rows],
            [text for _, text in rows],
            [[*each] for each in rows.values()],
            reading=self.reading,
        )
        chances = {
            key: dict(zip(each, values, strict=True))
            for (key, each), values in zip(rows.items(), found, strict=True)
        }
        for (_, text), known in chances.items():
            if not all(map(math.isfinite, known.values())):
                raise BridgeError(
                    f"the judge's answer to '{text}' is no number; ask it in float32, in which no "
                    "product is too large"
                )
        return [
            [sum(chances[place, text][spelling] for spelling in each) for text, each in mine]
            for place, mine in enumerate(wanted)
        ]


class _Kept:
    """A judge's latest answers."""

    def __init__(self, images: list[Image], key: object, answers: list[list[float]]) -> None:
        self.images = images  # held, so that no other gets their id
        self.key = key
        self.answers = answers


_LATEST: WeakKeyDictionary[Judge, _Kept] = WeakKeyDictionary()
