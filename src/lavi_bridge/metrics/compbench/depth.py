"""The 3-D relations of T2I-CompBench++: the official score as a pure function of detections and a
depth map, and a score of our own that sees with OWLv2 and Depth Anything.

Follows UniDet_eval/3D_spatial_eval.py of the official code (arXiv 2307.06350v3). UniDet's code and
weights are non-commercial and its depth model is DPT, so numbers of `spatial-3d` compare with each
other, never with official ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.files.pretrained import load_pretrained, loading
from lavi_bridge.files.weights import fingerprint_of
from lavi_bridge.metrics.base import METRICS, exact
from lavi_bridge.metrics.compbench.boxes import Box, iou
from lavi_bridge.metrics.compbench.chunks import parsed
from lavi_bridge.metrics.compbench.quirks import Mode, Quirk, said
from lavi_bridge.metrics.compbench.relations import Wanted, beside, pairs, relation_in
from lavi_bridge.metrics.compbench.spatial import SpatialOWLv2
from lavi_bridge.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image
    from spacy.tokens import Doc

RELATIONS = ("in front of", "behind", "hidden")
"""The official relations, in the order in which they are looked for."""
ENOUGH = 0.5  # IoU from which the objects are as much before each other as can be asked

QUIRKS = (
    Quirk(
        "depth across and down",
        official="takes a box's columns for the depth map's rows and its rows for columns, so that "
        "it reads the depth of another place, or of none, which scores 0",
        fixed="reads the depth of the box",
        where="UniDet_eval/3D_spatial_eval.py: determine_position, depth_map[…]",
    ),
    Quirk(
        "exactly half",
        official="gives no score for the position at an IoU of exactly one half",
        fixed="gives the full one",
        where="UniDet_eval/3D_spatial_eval.py: determine_position, iou_threshold_3d",
    ),
)
"""Beside those of nouns, persons and detections, which the 2-D scores share."""


def depth_score(
    first: Box | None,
    second: Box | None,
    relation: str | None,
    depth: Tensor,
    *,
    mode: Mode = "faithful",
) -> float:
    """How well two objects meet a relation in depth, in [0, 1].

    A quarter of the score is either object's confidence, one half their position. Unlike in two
    dimensions no score is too low to count.

    Args:
        first: the object that is named first; None where it was not detected.
        second: the other.
        relation: one of RELATIONS.
        depth: (height, width) of the image that the boxes refer to; larger is nearer.
        mode: see QUIRKS.
    """
    score = sum(0.25 * box.confidence for box in (first, second) if box)
    if first and second:
        score += depth_position(first, second, relation, depth, mode=mode) / 2
    return score


def depth_position(
    first: Box, second: Box, relation: str | None, depth: Tensor, *, mode: Mode = "faithful"
) -> float:
    """How well the places of two objects meet a relation in depth, in [0, 1].

    Objects that do not cover each other are neither before nor behind each other.
    """
    if relation not in RELATIONS:
        return 0.0
    nearer = (_mean(first, depth, mode) - _mean(second, depth, mode)).item()
    if relation != "in front of":
        nearer = -nearer
    covered = iou(first, second)
    if not nearer > 0 or (mode == "faithful" and covered == ENOUGH):
        return 0.0
    return min(1.0, covered / ENOUGH)


def _mean(box: Box, depth: Tensor, mode: Mode) -> Tensor:
    """The mean depth of a box; not a number where it has no pixels."""
    across, down = (
        slice(*(max(0, int(edge)) for edge in edges))
        for edges in ((box.left, box.right), (box.top, box.bottom))
    )
    return (depth[across, down] if mode == "faithful" else depth[down, across]).mean()


_RELATION = re.compile(r"\b(in front of|behind|hidden (?:by|behind|from))\b", re.IGNORECASE)


def depth_relation_in(doc: Doc, *, mode: Mode = "faithful") -> Wanted:
    """Read the relation in depth and its two objects from a parsed prompt; see `relation_in`."""
    if mode == "fixed":
        match = _RELATION.search(doc.text)
        if match is None:
            return Wanted(None, None, None)
        found = match[0].lower()
        return beside(doc, match, "hidden" if found.startswith("hidden") else found)
    return relation_in(doc, vocabulary=RELATIONS)


# A score of our own -------------------------------------------------------------------------------


@METRICS.register("spatial-3d")
class Spatial3D(SpatialOWLv2):
    """The 3-D spatial score by the boxes of OWLv2 and the depth of Depth Anything V2.

    A prompt in which no relation with two objects is found scores 0.

    Args:
        scorer: folder or Hub id of an Owlv2ForObjectDetection.
        depth: of a DepthAnythingForDepthEstimation of relative depth.
        device: None is the GPU where there is one.
        mode: see QUIRKS.
        threshold: confidence under which a box does not count.
        read: what a prompt relates; None reads it with spaCy's English model.
    """

    title = "3-D spatial (OWLv2, Depth Anything)"
    download = memory = 0.7
    files = ("depth",)
    DEPTH = "depth-anything/Depth-Anything-V2-Small-hf"

    def __init__(
        self,
        *,
        scorer: str = SpatialOWLv2.scorer,
        depth: str = DEPTH,
        device: str | torch.device | None = None,
        mode: Mode = "faithful",
        threshold: float = 0.1,
        read: Callable[[Prompt], Wanted] | None = None,
    ) -> None:
        super().__init__(scorer=scorer, device=device, mode=mode, threshold=threshold, read=read)
        from transformers import AutoImageProcessor, DepthAnythingForDepthEstimation

        self.place = locate(depth)
        config = self.place.json("config.json")
        kind = config.get("model_type"), config.get("depth_estimation_type", "relative")
        if kind != ("depth_anything", "relative"):
            raise BridgeError(
                f"'{depth}' is no Depth Anything of relative depth, but '{kind[0]}' ({kind[1]}); "
                f"give one such as {self.DEPTH}"
            )
        what = f"the depth model '{depth}'"
        model = load_pretrained(
            DepthAnythingForDepthEstimation, self.place, what, dtype=torch.float32
        )
        self.depth = model.eval().requires_grad_(False).to(self.owl.device)
        with loading(what):
            self.eyes = AutoImageProcessor.from_pretrained(**self.place.pretrained(), backend="pil")

    def provenance(self) -> dict[str, str]:
        return super().provenance() | {
            "depth": self.place.id,
            "depth fingerprint": fingerprint_of(self.place),
        }

    def _judge(self, boxes: Sequence[Box], wanted: Wanted, image: Image) -> float:
        depth = self.depths(image)
        return max(
            depth_score(*both, wanted.relation, depth, mode=self.mode)
            for both in pairs(boxes, wanted, mode=self.mode)
        )

    @exact()
    def depths(self, image: Image) -> Tensor:
        """The depth map (height, width) of an image, from 0, the farthest, to 1."""
        pixels = self.eyes(image.convert("RGB"), return_tensors="pt")["pixel_values"]
        found = self.depth(pixels.to(self.owl.device)).predicted_depth
        span = found.max() - found.min()
        scaled = (found - found.min()) / span.clamp(min=torch.finfo(span.dtype).tiny)
        size = image.height, image.width
        return interpolate(scaled[None], size, mode="bilinear", align_corners=True)[0, 0].cpu()

    def _read(self, prompt: Prompt) -> Wanted:
        return depth_relation_in(parsed(said(prompt, self.mode)), mode=self.mode)
