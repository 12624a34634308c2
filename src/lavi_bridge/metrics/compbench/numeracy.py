"""The numeracy of T2I-CompBench++: the official score as a pure function of detections, and a score
of our own that counts with OWLv2.

Follows UniDet_eval/numeracy_eval.py of the official code (arXiv 2307.06350v3). UniDet is not part
of this package (its weights are non-commercial), and how many boxes a detector gives hangs on it
and on its threshold: numbers of `numeracy-owlv2` compare with each other, never with official ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home
from lavi_bridge.files.fetch import checksum, fetched
from lavi_bridge.metrics.base import METRICS
from lavi_bridge.metrics.compbench.boxes import Box, distinct, overlap
from lavi_bridge.metrics.compbench.quirks import Mode, Quirk, said
from lavi_bridge.metrics.compbench.relations import PERSONS, Wanted
from lavi_bridge.metrics.compbench.spatial import SpatialOWLv2
from lavi_bridge.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "new_objects.txt"
URL = (
    "https://raw.githubusercontent.com/Karine-Huang/T2I-CompBench/"
    f"1b7094991a57f3c22abdd4f6e8ba6c1a15517073/examples/dataset/{FILE}"
)
SHA256 = "f39a3d2ff6067d7738673cbf465dc659ccc750776162989a5d9916f1d5f3e231"
EIGHT = "one two three four five six seven eight"
NUMBERS = {"a": 1, "an": 1} | {word: number for number, word in enumerate(EIGHT.split(), 1)}
LABELS = dict.fromkeys(PERSONS, "person") | {
    "ship": "boat",
    "telivision": "tv",
    "goldfish": "fish",
    "painting": "picture",
}
"""What UniDet calls some objects of the prompts."""
SAME = 0.9  # share of either box that two detections have in common where they are one object

QUIRKS = (
    Quirk(
        "labels",
        official="looks for UniDet's labels: a person for a girl, boy, man or woman, a boat for a "
        "ship, a picture for a painting; 'three girls and two boys' wants three persons, and two",
        fixed="looks for what the prompt says",
        where="UniDet_eval/numeracy_eval.py: main, my_obj_i",
    ),
    Quirk(
        "one inside the other",
        official="counts a detection that lies in another of its label as the same object",
        fixed="counts both",
        where="UniDet_eval/numeracy_eval.py: calculate_iou",
    ),
    Quirk(
        "numbers in capitals",
        official="does not read 'Three cats'",
        fixed="reads it",
        where="UniDet_eval/numeracy_eval.py: main, number",
    ),
)


Wants = Sequence[tuple[str, int]]
"""Objects by name, and how many of each."""


def numeracy_score(boxes: Sequence[Box], wanted: Wants) -> float:
    """Of each object half a point for its being there and half for its number, on average: [0, 1].

    Args:
        boxes: what was detected, each object once.
        wanted: one or more.
    """
    points = 0.0
    for name, number in wanted:
        count = sum(box.label == name for box in boxes)
        points += 0.5 * (count > 0) + 0.5 * (count == number)
    return points / len(wanted)


def counted(text: str, objects: Mapping[str, str], *, mode: Mode = "faithful") -> Wants:
    """What a prompt counts, in the singular or by UniDet's labels.

    Args:
        objects: plural -> singular.
        mode: see QUIRKS.
    """
    words = re.findall(r"\w+|[^\w\s]", text.lower() if mode == "fixed" else text)
    known = {name: name for name in objects.values()} | dict(objects)
    wanted = []
    for place, word in enumerate(words):
        if word not in NUMBERS:
            continue
        after = [" ".join(words[place + 1 : place + 1 + length]) for length in (2, 1)]
        if name := next((known[text] for text in after if text in known), None):
            wanted.append((LABELS.get(name, name) if mode == "faithful" else name, NUMBERS[word]))
    return wanted


def same_object(a: Box, b: Box) -> bool:
    """Whether the official code takes two detections of a label for one object."""
    both, first, second = overlap(a, b, edge=1)
    return max(both / (first + second - both), both / first, both / second) > SAME


def read_objects(path: Path) -> dict[str, str]:
    """The official objects, plural -> singular, from lines as `cup - cups`.

    Raises:
        BridgeError: the file is missing, or has another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").lower().splitlines()
        pairs = [line.split(" - ") for line in lines if line.strip()]
        return {plural.strip(): singular.strip() for singular, plural in pairs}
    except (OSError, ValueError) as error:
        raise BridgeError(f"{path} is no list of objects as 'cup - cups', from {URL}") from error


# A score of our own -------------------------------------------------------------------------------


@METRICS.register("numeracy-owlv2")
class NumeracyOWLv2(SpatialOWLv2):
    """The numeracy score by the boxes of OWLv2, which looks for the objects by their names.

    Args:
        scorer: folder or Hub id of an Owlv2ForObjectDetection.
        objects: file of the objects that may be counted; by default the official one, from the
            cache folder, fetched if need be.
        device: None is the GPU where there is one.
        mode: see QUIRKS.
        threshold: confidence under which a box does not count.
    """

    title = "numeracy (OWLv2)"
    needs = ""
    files = ("objects",)

    def __init__(
        self,
        *,
        scorer: str = SpatialOWLv2.scorer,
        objects: str | Path | None = None,
        device: str | torch.device | None = None,
        mode: Mode = "faithful",
        threshold: float = 0.1,
    ) -> None:
        super().__init__(scorer=scorer, device=device, mode=mode, threshold=threshold, read=_none)
        file = at_home(objects) if objects else fetched(FILE, url=URL, sha256=SHA256)
        self.objects = read_objects(file)
        self.parser = f"{file.name} {checksum(file)[:16]}"

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise where none of the prompts counts anything."""
        if prompts and len(lacking := self._lacking(prompts)) == len(prompts):
            raise BridgeError(
                f"none of {len(prompts)} prompts counts an official object, such as prompt "
                f"'{lacking[0].id}': '{lacking[0].text}'; numeracy-owlv2 reads the numbers one to "
                "eight right before an object, as in 'two cats and a dog'"
            )

    def note(self, prompts: Sequence[Prompt]) -> str | None:
        if not (lacking := self._lacking(prompts)):
            return None
        return (
            f"{len(lacking)} of {len(prompts)} prompts count none of the official objects and "
            f"have no numeracy, such as prompt '{lacking[0].id}': '{lacking[0].text}'"
        )

    def _lacking(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        return [prompt for prompt in prompts if not self._counted(prompt)]

    def _counted(self, prompt: Prompt) -> Wants:
        return counted(said(prompt, self.mode), self.objects, mode=self.mode)

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        """As of all scores; a prompt that counts nothing is an error that names it."""
        scores = []
        for image, prompt in zip(images, prompts, strict=True):
            wanted = self._counted(prompt)
            if not wanted:
                raise BridgeError(f"prompt '{prompt.id}' counts none of the official objects")
            names = tuple(dict.fromkeys(name for name, _ in wanted))
            (boxes,) = self.detect([image], [names])
            if self.mode == "faithful":
                boxes = distinct(boxes, same_object)
            scores.append(numeracy_score(boxes, wanted))
        return scores


def _none(prompt: Prompt) -> Wanted:
    return Wanted(None, None, None)
