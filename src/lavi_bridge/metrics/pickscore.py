"""PickScore: how much people would prefer an image for its prompt, by a CLIP trained on choices.

Source: arXiv 2305.01569; yuvalkirstain/PickScore.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lavi_bridge.metrics.base import METRICS
from lavi_bridge.metrics.clip import CLIPScore, clip_score
from lavi_bridge.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

PICKSCORE = "yuvalkirstain/PickScore_v1"


@METRICS.register("pickscore")
class PickScore(CLIPScore):
    """The model's logit scale times the cosine of image and text embedding, about 16 to 25.

    Of two images of one prompt the model takes the first to be preferred with the odds exp(first's
    score - second's).
    """

    title = "PickScore"
    scorer = PICKSCORE
    licence = "MIT (the code; the weights' card names none)"
    download = memory = 3.9

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        texts = self.clip.text_embeddings([p.text for _, p in zip(images, prompts, strict=True)])
        scale = self.clip.model.logit_scale.detach().exp().cpu()
        return (scale * clip_score(self.clip.image_embeddings(images), texts)).tolist()
