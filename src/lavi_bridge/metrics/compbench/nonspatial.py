"""The non-spatial relations of T2I-CompBench: the raw cosine of CLIP ViT-B/32.

Follows CLIPScore_eval/CLIP_similarity.py of the official code, which rounds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from lavi_bridge.errors import BridgeError
from lavi_bridge.metrics.base import METRICS, Score
from lavi_bridge.metrics.clip import clip_score, load_clip
from lavi_bridge.metrics.compbench.chunks import english, parsed, parser, without_adjectives
from lavi_bridge.metrics.compbench.quirks import COMPLEX, Mode, Quirk, checked, said
from lavi_bridge.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

QUIRKS = (
    Quirk(
        "long prompt",
        official="stops with an error at a prompt of more than 77 tokens",
        fixed="reads its first 77 tokens",
        where="CLIPScore_eval/clip/clip.py: tokenize",
    ),
)


@METRICS.register("clip-nonspatial")
class CLIPNonSpatial(Score):
    """How near an image is to its prompt, a cosine of about 0.3.

    Prompts of the complex category are read without their adjectives. On a GPU the official code
    computes in half precision, whose cosines near 0.3 are multiples of 1/4096; here it is float32
    in both modes, as the official code does on a CPU.

    Args:
        scorer: folder or Hub id of a CLIPModel.
        device: None is the GPU where there is one.
        mode: see QUIRKS.
        plain: takes the adjectives out of a text; None does so with spaCy's English model.
    """

    title = "CLIP (non-spatial)"
    scorer = "openai/clip-vit-base-patch32"
    licence = "MIT"
    download = memory = 0.6
    needs = "extra compbench (complex)"

    def __init__(
        self,
        *,
        scorer: str = scorer,
        device: str | torch.device | None = None,
        mode: Mode = "faithful",
        plain: Callable[[str], str] | None = None,
    ) -> None:
        self.mode = checked(mode)
        self.parser = "the caller's own" if plain else parser()
        self.own = plain is not None
        self.plain = plain or (lambda text: without_adjectives(parsed(text)))
        self.clip = load_clip(scorer, device)

    def note(self, prompts: Sequence[Prompt]) -> str | None:
        if not self.own and any(prompt.category == COMPLEX for prompt in prompts):
            english()  # say now that it is missing, not at every image
        return None

    def provenance(self) -> dict[str, str]:
        return self.clip.provenance() | {"mode": self.mode, "parser": self.parser}

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        texts = self.clip.text_embeddings([self.text(prompt) for prompt in prompts])
        return clip_score(self.clip.image_embeddings(images), texts).tolist()

    def text(self, prompt: Prompt) -> str:
        """What CLIP reads of a prompt.

        Raises:
            BridgeError: it is too long for CLIP, in mode `faithful`.
        """
        text = said(prompt, self.mode)
        text = self.plain(text) if prompt.category == COMPLEX else text
        if self.mode == "faithful":
            length = len(self.clip.tokenizer(text, verbose=False)["input_ids"])
            if length > self.clip.tokens:
                raise BridgeError(
                    f"prompt '{prompt.id}' has {length} tokens, CLIP reads {self.clip.tokens}: the "
                    "official code stops here; mode 'fixed' reads the beginning"
                )
        return text
