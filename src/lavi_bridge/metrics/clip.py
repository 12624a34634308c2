"""CLIP: its embeddings of images and texts, and the CLIP score made of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place, locate
from lavi_bridge.files.pretrained import load_pretrained, loading
from lavi_bridge.files.weights import fingerprint_of
from lavi_bridge.metrics.base import METRICS, Score, exact
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.running.device import choose_device

if TYPE_CHECKING:
    from PIL.Image import Image

LARGE = "openai/clip-vit-large-patch14"
BASE = "openai/clip-vit-base-patch32"


def clip_score(images: Tensor, texts: Tensor) -> Tensor:
    """Embeddings (N, width) of images and of their texts -> cosines (N,) in [-1, 1].

    Neither scaled nor cut off at zero, as in the paper's tables; the CLIPScore of arXiv 2104.08718
    is 2.5 times its positive part.
    """
    return cosine_similarity(images, texts, dim=1)


class CLIP:
    """A CLIP in float32 with its tokenizer and its preprocessing."""

    def __init__(self, model: Any, tokenizer: Any, processor: Any, place: Place) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.processor = processor
        self.place = place
        self._latest: tuple[list[Image], Tensor] | None = None

    @property
    def width(self) -> int:
        """Size of an embedding."""
        return self.model.config.projection_dim

    @property
    def tokens(self) -> int:
        """The longest text that it reads, start and end included."""
        return self.model.config.text_config.max_position_embeddings

    @exact()
    def image_embeddings(self, images: Sequence[Image]) -> Tensor:
        """Images of any size and mode -> embeddings (N, width), on the CPU, not normalised.

        Those of the latest images are kept, so that the scores of a batch share them.
        """
        if self._latest is None or [*map(id, self._latest[0])] != [*map(id, images)]:
            pixels = self.processor(list(images), return_tensors="pt")["pixel_values"]
            output = self.model.get_image_features(pixels.to(self.model.device))
            self._latest = [*images], output.pooler_output.cpu()
        return self._latest[1]

    @exact()
    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        """Texts -> embeddings (N, width), on the CPU; longer ones than it reads lose their end."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.tokens, return_tensors="pt"
        )
        output = self.model.get_text_features(**tokens.to(self.model.device))
        return output.pooler_output.cpu()

    def too_long(self, texts: Sequence[str]) -> int:
        """How many texts lose their end."""
        every = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return sum(len(ids) > self.tokens for ids in every)

    def provenance(self) -> dict[str, str]:
        """The model, its fingerprint, and the libraries that run it."""
        return {
            "scorer": self.place.id,
            "weights": fingerprint_of(self.place),
            **{name: version(name) for name in ("torch", "transformers", "pillow")},
        }


_LOADED: WeakValueDictionary[tuple[str, torch.device], CLIP] = WeakValueDictionary()


def load_clip(scorer: str | Path, device: str | torch.device | None = None) -> CLIP:
    """The CLIP of a Hub id or folder; metrics that ask for the same one share it.

    Raises:
        BridgeError: there is none, or it is another kind of model.
    """
    key = locate(scorer).id, choose_device(device)
    clip = _LOADED.get(key)
    if clip is None:
        clip = _LOADED[key] = _load(locate(scorer), key[1])
    return clip


def _load(place: Place, device: torch.device) -> CLIP:
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    kind = place.json("config.json").get("model_type")
    if kind != "clip":
        raise BridgeError(f"'{place.id}' is no CLIP, but '{kind}'; give one such as {BASE}")
    what = f"CLIP '{place.id}'"
    model = load_pretrained(CLIPModel, place, what, dtype=torch.float32)
    with loading(what):
        tokenizer = AutoTokenizer.from_pretrained(**place.pretrained())
        # by PIL, as OpenAI's own code, so that scores do not depend on what else is installed
        processor = AutoImageProcessor.from_pretrained(**place.pretrained(), backend="pil")
    tokenizer.truncation_side = "right"  # texts lose their end, whatever its files say
    return CLIP(model.to(device).eval(), tokenizer, processor, place)


@METRICS.register("clip-score")
class CLIPScore(Score):
    """Raw cosine of image and text embedding; see `clip_score`.

    The paper does not name its CLIP. Its values near .31 are of the size that ViT-B/32 gives (the
    paper's own non-spatial column, which is ViT-B/32 by protocol, has .30 to .31), so that is the
    default; ViT-L/14's cosines are lower.
    """

    title = "CLIP score"
    scorer = BASE
    licence = "MIT"
    download = memory = 0.6

    def __init__(
        self, *, scorer: str | Path | None = None, device: str | torch.device | None = None
    ) -> None:
        self.clip = load_clip(scorer or self.scorer, device)

    def note(self, prompts: Sequence[Prompt]) -> str | None:
        if not (cut := self.clip.too_long([prompt.text for prompt in prompts])):
            return None
        return (
            f"{cut} of {len(prompts)} texts are longer than the {self.clip.tokens} tokens of "
            f"{self.title}'s model, which does not read their ends"
        )

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        texts = self.clip.text_embeddings([p.text for _, p in zip(images, prompts, strict=True)])
        return clip_score(self.clip.image_embeddings(images), texts).tolist()

    def provenance(self) -> dict[str, str]:
        return self.clip.provenance()
