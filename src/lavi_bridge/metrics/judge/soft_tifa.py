"""Soft-TIFA of GenEval 2: how probable a judge thinks each atom of a prompt's answer to be.

Written after arXiv 2512.16853 and held to what the published script computes
(facebookresearch/GenEval2@a6e82d2289e8d418f27f0adee77908b07060eea3; CC BY-NC 4.0, nothing of it is
here).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lavi_bridge.metrics.base import METRICS
from lavi_bridge.metrics.compbench.quirks import Mode, Quirk
from lavi_bridge.metrics.judge.asked import YES, Asking, ByJudge
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.questions import Question, questions_of

if TYPE_CHECKING:
    from PIL.Image import Image

TEN = "one two three four five six seven eight nine ten"
NUMERALS = {word: str(number) for number, word in enumerate(TEN.split(), 1)}
COUNTED = "How many"

QUIRKS = (
    Quirk(
        "first token",
        official="takes the probability of an answer's first token for that of the answer: of ' 4' "
        "that of a space, where digits are tokens of their own",
        fixed="multiplies the probabilities of all of its tokens",
        where="GenEval 2, evaluation.py: send_message_with_image, encode(answer)[0]",
    ),
    Quirk(
        "spellings twice",
        official="adds up all spellings of an answer, also those that begin with the same token, "
        "so that a score may exceed 1",
        fixed="adds up what no reply can begin with at once",
        where="GenEval 2, evaluation.py: send_message_with_image, lm_prob +=",
    ),
    Quirk(
        "numbers beyond ten",
        official="takes 'other' for the numeral of any number but one to ten",
        fixed="takes the number as it is written, and its numeral where it is one to ten",
        where="GenEval 2, evaluation.py: return_numeric_string",
    ),
    Quirk(
        "every other answer is yes",
        official="asks for the probability of Yes, whatever the right answer is, unless the "
        "question begins with How many",
        fixed="asks for that of the right answer",
        where="GenEval 2, evaluation.py: soft_tifa",
    ),
)


def spellings(question: Question, *, mode: Mode = "faithful") -> tuple[str, ...]:
    """The spellings of an answer whose probabilities are added up."""
    answer = question.answer
    if mode == "faithful":
        if not question.text.startswith(COUNTED):
            return YES
        numeral = NUMERALS.get(answer, "other")
        bare = [answer, answer.capitalize(), numeral]
        return tuple(f"{space}{word}" for word in bare for space in ("", " "))
    words = dict.fromkeys([answer, answer.lower(), answer.capitalize()])
    if numeral := NUMERALS.get(answer.lower(), ""):
        words[numeral] = None
    return tuple(f"{space}{word}" for word in words for space in ("", " "))


def geometric_mean(atoms: Sequence[float]) -> float:
    """0 where any atom is 0."""
    if not all(atom > 0 for atom in atoms):
        return 0.0
    return math.exp(math.fsum(map(math.log, atoms)) / len(atoms))


@METRICS.register("soft-tifa")
class SoftTIFA(ByJudge):
    """The mean over a prompt's atoms: how much of what it asks for is there."""

    title = "Soft-TIFA AM"
    published = "Qwen/Qwen3-VL-8B-Instruct"
    asks = "{} Answer in one word."

    @classmethod
    def questions(cls, prompt: Prompt, mode: Mode) -> list[Asking]:
        return [
            (cls.asks.replace("{}", one.text), spellings(one, mode=mode))
            for one in questions_of(prompt)
        ]

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        return [math.fsum(atoms) / len(atoms) for atoms in self.answers(images, prompts)]


@METRICS.register("soft-tifa-gm")
class SoftTIFAGM(SoftTIFA):
    """The geometric mean over a prompt's atoms: whether all that it asks for is there."""

    title = "Soft-TIFA GM"

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        return [geometric_mean(atoms) for atoms in self.answers(images, prompts)]
