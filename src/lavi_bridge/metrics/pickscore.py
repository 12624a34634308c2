"""PickScore: how much people would prefer an image for its prompt, by a CLIP trained on choices.

Source: arXiv 2305.01569; yuvalkirstain/PickScore.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lavi_bridge.metrics.base import METRICS, Score
from lavi_bridge.metrics.clip import clip_score, load_clip
from lavi_bridge.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

PICKSCORE = "yuvalkirstain/PickScore_v1"


@METRICS.register("pickscore")
class PickScore(Score):
    """The model's logit scale times the cosine of image and text embedding, about 16 to 25.

    Of two images of one prompt the model takes the first to be preferred with the odds exp(first's
    score - second's).
    """

    title = "PickScore"
    scorer = PICKSCORE
    licence = "MIT (the code; the weights' card names none)"
    download = memory = 3.9

    def __init__(
        self, *, scorer: str | Path = PICKSCORE, device: str | torch.device | None = None
    ) -> None:
        self.clip = load_clip(scorer, device)

    def note(self, prompts: Sequence[Prompt]) -> str | None:
        if not (cut := self.clip.too_long([prompt.text for prompt in prompts])):
            return None
        return (
            f"{cut} of {len(prompts)} texts are longer than the {self.clip.tokens} tokens of "
            "PickScore's model, which does not read their ends"
        )

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        texts = self.clip.text_embeddings([p.text for _, p in zip(images, prompts, strict=True)])
        scale = self.clip.model.logit_scale.detach().exp().cpu()
        return (scale * clip_score(self.clip.image_embeddings(images), texts)).tolist()

    def provenance(self) -> dict[str, str]:
        return self.clip.provenance()
