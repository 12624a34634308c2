"""DPG-Bench's questions, asked of a judge: a number of its own, as the published one is mPLUG's.

The graph is that of arXiv 2403.05135: a question counts only where those that it depends on are
answered with yes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lavi_bridge.errors import BridgeError
from lavi_bridge.metrics.base import METRICS
from lavi_bridge.metrics.compbench.quirks import Mode, Quirk
from lavi_bridge.metrics.judge.asked import NO, YES, Asking, ByJudge
from lavi_bridge.metrics.judge.model import Reading
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.questions import Question, questions_of

if TYPE_CHECKING:
    from PIL.Image import Image

SCRIPT = "DPG-Bench, dpg_bench/compute_dpg_bench.py"
QUIRKS = (
    Quirk(
        "first row",
        official="leaves out the table's first question, and with it every picture whose questions "
        "depend on that one",
        fixed="asks it",
        where=f"{SCRIPT}: prepare_dpg_data, if i == 0",
    ),
    Quirk(
        "order of questions",
        official="looks at the questions in the table's order, so that one fails with its parent's "
        "parent only where that came before its parent",
        fixed="fails with any that it depends on, however far",
        where=f"{SCRIPT}: compute_dpg_one_sample, qid2scores",
    ),
)


def graph_score(
    questions: Sequence[Question], yes: Sequence[bool], *, mode: Mode = "faithful"
) -> float:
    """The share of questions that are answered with yes, and so are those that they depend on.

    Of questions that depend on each other in a circle, one that fails takes the others with it.

    Raises:
        BridgeError: the official script fails on them, in mode `faithful`.
    """
    counts = [float(answer) for answer in yes]
    if mode == "faithful":
        lost = {place for place, question in enumerate(questions) if question.lost}
        if len(lost) == len(questions):
            raise BridgeError(
                f"the official script fails here: it leaves out '{questions[0].text}' and there is "
                "no other question; --mode fixed asks it"
            )
        for place, question in enumerate(questions):
            if lost & {*question.parents} and place not in lost:
                raise BridgeError(
                    f"the official script fails here: it leaves out a question that "
                    f"'{question.text}' depends on; --mode fixed asks it"
                )
        for place, question in enumerate(questions):
            if any(counts[parent] == 0 for parent in question.parents):
                counts[place] = 0.0
        kept = [count for place, count in enumerate(counts) if place not in lost]
        return math.fsum(kept) / len(kept)
    for _ in questions:  # as often as a chain may be long
        before = [*counts]
        for place, question in enumerate(questions):
            counts[place] *= min((counts[parent] for parent in question.parents), default=1.0)
        if counts == before:
            break
    return math.fsum(counts) / len(counts)


@METRICS.register("dpg-judge")
class DPGJudge(ByJudge):
    """The share of a prompt's questions that the judge answers with yes rather than no."""

    title = "DPG by judge"
    published = "mPLUG-large, which is no judge: no other's are the same"
    asks = "{} Answer with Yes or No."

    @property
    def reading(self) -> Reading:
        return "strings"  # there is no published reading of a judge

    @classmethod
    def questions(cls, prompt: Prompt, mode: Mode) -> list[Asking]:
        told = [cls.asks.replace("{}", one.text) for one in questions_of(prompt)]
        return [(question, answer) for question in told for answer in (YES, NO)]

    def check(self, prompts: Sequence[Prompt]) -> None:
        super().check(prompts)
        for prompt in prompts:
            questions = questions_of(prompt)
            if self.mode == "faithful" and all(question.lost for question in questions):
                raise BridgeError(
                    f"prompt '{prompt.id}': the official script leaves out its only question, "
                    f"'{questions[0].text}'; --mode fixed asks it"
                )

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        scores = []
        for prompt, chances in zip(prompts, self.answers(images, prompts), strict=True):
            yes = [a > b for a, b in zip(chances[::2], chances[1::2], strict=True)]
            scores.append(graph_score(questions_of(prompt), yes, mode=self.mode))
        return scores
