"""What asking a judge costs, counted from its config and its processor: no weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import loading
from lavi_bridge.metrics.judge.model import PICTURES, ROWS
from lavi_bridge.metrics.judge.processor import asked, blank_picture, load_processor
from lavi_bridge.metrics.judge.rows import parted
from lavi_bridge.metrics.judge.size import Size

SAMPLE = 64
"""Questions that are tokenised, evenly over all."""
SAID = 2
"""Tokens of an answer whose probabilities are computed over the whole vocabulary, about."""


@dataclass(frozen=True)
class Cost:
    """TFLOP of a judge, multiply and add counted as two; without the products within attention."""

    picture_tokens: int
    """Tokens that stand for a picture, with those before."""
    question_tokens: float
    """Tokens after it, on average."""
    picture: float
    """Once for a picture."""
    question: float
    """For each question about it."""

    @property
    def at_once(self) -> float:
        """Tokens of which keys and values are held at once, at most."""
        return (ROWS + PICTURES) * (self.picture_tokens + self.question_tokens)


def cost_of(
    place: Place,
    size: Size,
    questions: Sequence[str],
    *,
    width: int,
    height: int,
    trust_remote_code: bool = False,
) -> Cost:
    """Count what questions about pictures of a size cost.

    Raises:
        BridgeError: the processor cannot be loaded, or has no chat template.
    """
    from transformers import AutoConfig

    processor = load_processor(place, trust_remote_code=trust_remote_code)
    with loading(f"the config of '{place.id}'", trust_remote_code=trust_remote_code):
        config = AutoConfig.from_pretrained(
            **place.pretrained(), trust_remote_code=trust_remote_code
        )
    some = questions[:: max(1, len(questions) // SAMPLE)]
    first = asked(processor, blank_picture(width, height), some[0])
    before, _ = parted(tuple(first["input_ids"][0].tolist()), config)
    small = blank_picture(64)
    tails = [
        len(parted(tuple(asked(processor, small, text)["input_ids"][0].tolist()), config)[1])
        for text in some
    ]
    tail = fmean(tails)
    return Cost(
        len(before),
        tail,
        2e-12 * (size.seeing * _patches(first, config) + size.language * len(before)),
        2e-12 * (size.language * tail + size.saying * SAID),
    )


def _patches(inputs: dict[str, Tensor], config: Any) -> int:
    """How many patches of a picture its tower reads."""
    pixels = inputs["pixel_values"]
    if pixels.ndim == 2:  # a row a patch
        return pixels.shape[0]
    side = getattr(config.vision_config, "patch_size", 14)
    side = side if isinstance(side, int) else side[0]
    return pixels[..., 0, :, :].numel() // side**2
