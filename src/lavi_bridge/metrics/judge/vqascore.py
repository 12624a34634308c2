"""VQAScore: the probability that a judge says Yes when asked whether a picture shows its prompt.

arXiv 2404.01291; wording and reading as in linzhiqiu/t2v_metrics 3.1
(@6ecb74f92028f42c7e64546d3a71e98c8c73068f), which asks judges of transformers in this way. The
paper's own numbers are CLIP-FlanT5's, which is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lavi_bridge.metrics.base import METRICS
from lavi_bridge.metrics.compbench.quirks import Mode, Quirk
from lavi_bridge.metrics.judge.asked import Asking, ByJudge
from lavi_bridge.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

QUIRKS = (
    Quirk(
        "first token of Yes",
        official="writes one token and reads of Yes as many, so that of a tokenizer with several "
        "for it the first alone counts",
        fixed="multiplies the probabilities of all",
        where="VQAScore, t2v_metrics/models/vqascore_models/qwen3vl_model.py: forward",
    ),
)


@METRICS.register("vqascore")
class VQAScore(ByJudge):
    """P(Yes), of any prompt."""

    title = "VQAScore"
    published = "clip-flant5-xxl, which is no model of transformers: no other's are the same"
    asks = 'Does this figure show "{}"? Please answer Yes or No.'

    @classmethod
    def questions(cls, prompt: Prompt, mode: Mode) -> list[Asking]:
        return [(cls.asks.replace("{}", prompt.text), ("Yes",))]

    def reads(self, prompt: Prompt) -> str:
        return prompt.text

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        return [chance for (chance,) in self.answers(images, prompts)]
