"""The spatial relations of T2I-CompBench: the official scores as pure functions of detections, and
a score of our own that detects with OWLv2.

Follows UniDet_eval/2D_spatial_eval.py of the official code (arXiv 2307.06350, section 4.2). Its
detector, UniDet, is not part of this package (its weights are non-commercial), so numbers of
`spatial-owlv2` compare with each other, never with official ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from lavi_bridge.metrics.base import METRICS, Score, exact
from lavi_bridge.metrics.compbench.boxes import Box, distinct, iou
from lavi_bridge.metrics.compbench.chunks import english, parsed, parser
from lavi_bridge.metrics.compbench.quirks import COMPLEX, Mode, Quirk, Scorer, checked, said
from lavi_bridge.metrics.compbench.relations import Wanted, pairs, relation_in
from lavi_bridge.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

NEAR = frozenset({"next to", "near", "on side of"})
DIRECTIONS = {  # how the second object's middle lies from the first one's: across, down
    "on the right of": (-1, 0),
    "on the left of": (1, 0),
    "on the bottom of": (0, -1),
    "on the top of": (0, 1),
}

DISTANCE = 150.0  # pixels of an image of about 480, within which objects are near
APART = 0.1  # IoU under which objects do not cover each other
LEAST = 0.5  # a lower score counts as 0
DUPLICATE = 0.5  # IoU over which two boxes of OWLv2 are one object

QUIRKS = (
    Quirk(
        "near in one direction",
        official="objects are near where their middles are within 150 px across or down, however "
        "far apart in the other direction",
        fixed="within 150 px across and down",
        where="UniDet_eval/2D_spatial_eval.py: determine_position",
    ),
    Quirk(
        "on top of",
        official="knows no position for 'on top of', so that such a prompt scores 0 (33 of the 88 "
        "complex prompts with a spatial relation)",
        fixed="reads it as 'on the top of', and 'on bottom of' likewise",
        where="UniDet_eval/2D_spatial_eval.py: determine_position, vocab_spatial",
    ),
    Quirk(
        "order of relations",
        official="takes the relation that comes first in its vocabulary, in that spelling, also "
        "inside a word as in 'nearby'",
        fixed="takes the one that comes first in the prompt, in any case, as whole words",
        where="UniDet_eval/2D_spatial_eval.py: main, for word in vocab_spatial",
    ),
    Quirk(
        "first and last noun",
        official="relates the first and the last noun of a prompt, one word each",
        fixed="relates the nouns of the noun chunks before and after the relation",
        where="UniDet_eval/2D_spatial_eval.py: main, simple structure",
    ),
    Quirk(
        "two relations",
        official="scores 0 for complex prompts unless exactly two objects stand around the "
        "prepositions, so also where a prompt has two relations",
        fixed="takes the first relation",
        where="UniDet_eval/2D_spatial_eval.py: main, len(objects)==2",
    ),
    Quirk(
        "persons",
        official="looks for a person where the prompt has a girl, boy, man or woman, as UniDet has "
        "no other label",
        fixed="looks for what the prompt says",
        where="UniDet_eval/2D_spatial_eval.py: main, person",
    ),
    Quirk(
        "one object twice",
        official="takes one detection for both objects where they have the same label, so that a "
        "single man is next to a woman",
        fixed="takes two detections, in the order that suits the relation",
        where="UniDet_eval/2D_spatial_eval.py: main, obj.index",
    ),
    Quirk(
        "first detection",
        official="takes the first detection with the right label",
        fixed="takes the most confident",
        where="UniDet_eval/2D_spatial_eval.py: main, obj.index",
    ),
)


def spatial_score(
    first: Box | None,
    second: Box | None,
    relation: str | None,
    *,
    size: tuple[int, int],
    mode: Mode = "faithful",
) -> float:
    """How well two objects meet a relation: 0, or in [0.5, 1].

    A quarter of the score is either object's confidence, one half their position.

    Args:
        first: the object that is named first; None where it was not detected.
        second: the other.
        relation: one of VOCABULARY.
        size: width and height in pixels of the image that the boxes refer to.
        mode: see QUIRKS.
    """
    score = 0.0
    for box in (first, second):
        score += 0.25 * box.confidence if box else 0.0
    if first and second:
        score += position(first, second, relation, size=size, mode=mode) / 2
    return score if score >= LEAST else 0.0


def position(
    first: Box, second: Box, relation: str | None, *, size: tuple[int, int], mode: Mode = "faithful"
) -> float:
    """How well the places of two objects meet a relation, in [0, 1]; 0 for an unknown one.

    The official code resizes every image to about 480 px before it detects, so that its 150 px are
    a part of the image, not of its pixels.
    """
    width, height = size
    wide, high = official_size(width, height)
    first, second = (box.scaled(wide / width, high / height) for box in (first, second))
    dx, dy = second.x - first.x, second.y - first.y
    if relation in NEAR:
        farther = max(abs(dx), abs(dy))
        distance = min(abs(dx), abs(dy)) if mode == "faithful" else farther
        return 1.0 if distance < DISTANCE else DISTANCE / farther
    if mode == "fixed" and relation in ("on top of", "on bottom of"):
        relation = relation.replace("on ", "on the ")
    if relation not in DIRECTIONS:
        return 0.0
    across, down = DIRECTIONS[relation]
    ahead, aside = across * dx + down * dy, abs(down * dx + across * dy)
    if ahead <= aside:
        return 0.0
    covered = iou(first, second)
    return 1.0 if covered < APART else APART / covered


def official_size(width: int, height: int) -> tuple[int, int]:
    """Width and height to which the official code resizes an image, in pixels.

    The shorter side becomes 479, unless the longer one would be more than 480 (torchvision's
    Resize(479, max_size=480) in UniDet_eval/experts/model_bank.py).
    """
    short, long = sorted((width, height))
    new_short, new_long = 479, int(479 * long / short)
    if new_long > 480:
        new_short, new_long = int(480 * new_short / new_long), 480
    return (new_short, new_long) if width <= height else (new_long, new_short)


# A score of our own -------------------------------------------------------------------------------


@METRICS.register("spatial-owlv2")
class SpatialOWLv2(Score):
    """The 2-D spatial score by the boxes of OWLv2, which looks for the two objects by their names.

    A prompt in which no relation with two objects is found scores 0.

    Args:
        scorer: folder or Hub id of an Owlv2ForObjectDetection.
        device: None is the GPU where there is one.
        mode: see QUIRKS.
        threshold: confidence under which a box does not count.
        read: what a prompt relates; None reads it with spaCy's English model.
    """

    title = "spatial (OWLv2)"
    scorer = "google/owlv2-base-patch16-ensemble"
    licence = "Apache-2.0"
    download = memory = 0.6
    needs = "extra compbench"

    def __init__(
        self,
        *,
        scorer: str = scorer,
        device: str | torch.device | None = None,
        mode: Mode = "faithful",
        threshold: float = 0.1,
        read: Callable[[Prompt], Wanted] | None = None,
    ) -> None:
        from transformers import Owlv2ImageProcessorPil

        self.mode = checked(mode)
        self.parser = "the caller's own" if read else parser()
        self.threshold = threshold
        self.read = read or self._read
        self.owl = Scorer("Owlv2ForObjectDetection", scorer, device)
        side = self.owl.model.config.vision_config.image_size
        self.processor = Owlv2ImageProcessorPil(size={"height": side, "width": side})
        if read is None:
            english()  # say now that it is missing, not at every image

    def provenance(self) -> dict[str, str]:
        own = {"mode": self.mode, "parser": self.parser, "threshold": str(self.threshold)}
        return self.owl.provenance | own

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        asked = [self.read(prompt) for prompt in prompts]
        named = [(w.first, w.second) if w.first and w.second else None for w in asked]
        found = iter(
            self.detect(
                [image for image, names in zip(images, named, strict=True) if names],
                [names for names in named if names],
            )
        )
        return [
            self._judge(next(found), wanted, image) if names else 0.0
            for image, wanted, names in zip(images, asked, named, strict=True)
        ]

    @exact()
    def detect(self, images: Sequence[Image], names: Sequence[tuple[str, ...]]) -> list[list[Box]]:
        """The objects of the given names in each image, as many for all, most confident first."""
        if not images:
            return []
        pixels = self.processor(list(images), return_tensors="pt")["pixel_values"]
        encoded = self.owl.tokenizer(
            [name for those in names for name in those],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
            max_length=self.owl.model.config.text_config.max_position_embeddings,
        ).to(self.owl.device)
        output = self.owl.model(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            pixel_values=pixels.to(self.owl.device),
        )
        found = self.processor.post_process_object_detection(
            output, self.threshold, [(image.height, image.width) for image in images]
        )
        return [
            _boxes(one["scores"].tolist(), one["labels"].tolist(), one["boxes"].tolist(), those)
            for one, those in zip(found, names, strict=True)
        ]

    def _judge(self, boxes: Sequence[Box], wanted: Wanted, image: Image) -> float:
        return max(
            spatial_score(first, second, wanted.relation, size=image.size, mode=self.mode)
            for first, second in pairs(boxes, wanted, mode=self.mode)
        )

    def _read(self, prompt: Prompt) -> Wanted:
        doc = parsed(said(prompt, self.mode))
        return relation_in(doc, compound=prompt.category == COMPLEX, mode=self.mode)


def _boxes(
    scores: Sequence[float],
    labels: Sequence[int],
    edges: Sequence[Sequence[float]],
    names: tuple[str, ...],
) -> list[Box]:
    boxes = [Box(names[k], s, *e) for s, k, e in zip(scores, labels, edges, strict=True)]
    boxes.sort(key=lambda box: -box.confidence)
    return distinct(boxes, lambda a, b: iou(a, b) > DUPLICATE)
