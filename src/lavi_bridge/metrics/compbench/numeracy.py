"""The numeracy score of T2I-CompBench as a pure function of detections.

Follows UniDet_eval/numeracy_eval.py of the official code. Its detector, UniDet, is not part of
this package (its weights are non-commercial).
"""

from __future__ import annotations

from collections.abc import Sequence

from lavi_bridge.errors import BridgeError
from lavi_bridge.metrics.compbench.boxes import Box, distinct, overlap
from lavi_bridge.metrics.compbench.quirks import Mode, Quirk

SAME = 0.9
"""Boxes of one label are one object where their overlap is more than this fraction of either."""

LABELS = {
    "boy": "person",
    "girl": "person",
    "man": "person",
    "woman": "person",
    "ship": "boat",
    "goldfish": "fish",
    "painting": "picture",
}
"""What UniDet calls the objects of the prompts where it has another word."""

QUIRKS = (
    Quirk(
        "television",
        official="translates 'telivision', not 'television', into UniDet's 'tv'",
        fixed="translates television",
        where="UniDet_eval/numeracy_eval.py: main, telivision",
    ),
    Quirk(
        "part of a word",
        official="finds a car in a label such as 'carrot' where none is 'car'",
        fixed="finds whole words, the car in 'race car'",
        where="UniDet_eval/numeracy_eval.py: main, if my_obj_i in obj_i",
    ),
    Quirk(
        "renamed",
        official="counts a bear in 'polar bear' and then no longer finds the polar bear",
        fixed="counts each object among all that were detected",
        where="UniDet_eval/numeracy_eval.py: main, new_obj[j] = my_obj_i",
    ),
    Quirk(
        "one label for two",
        official="compares two boys, and one girl, each with the number of all persons",
        fixed="compares three persons with it",
        where="UniDet_eval/numeracy_eval.py: main, num_det == num_obj[i]",
    ),
)


def numeracy_score(
    wanted: Sequence[tuple[str, int]], boxes: Sequence[Box], *, mode: Mode = "faithful"
) -> float:
    """How well the objects in an image meet those of its prompt, in [0, 1].

    Every object of the prompt has the same weight: half for being there, half for its number.

    Args:
        wanted: the prompt's objects, in the singular, and how many of each.
        boxes: what was detected, best first, under UniDet's labels.
        mode: see QUIRKS.

    Raises:
        BridgeError: nothing is wanted (the official code stops there, too).
    """
    if not wanted:
        raise BridgeError("a prompt without numbered objects has no numeracy score")
    labels = [box.label for box in distinct(boxes, _same)]
    if mode == "fixed":
        return _fixed(wanted, labels)
    names = LABELS | {"telivision": "tv"}
    score, weight = 0.0, 1.0 / len(wanted)
    for name, count in wanted:
        name = names.get(name, name)
        if name not in labels:
            labels = [name if name in label else label for label in labels]
        if name in labels:
            score += 0.5 * weight
            if labels.count(name) == count:
                score += 0.5 * weight
    return score


def _fixed(wanted: Sequence[tuple[str, int]], labels: Sequence[str]) -> float:
    names = LABELS | {"television": "tv"}
    counts: dict[str, int] = {}
    for name, count in wanted:
        name = names.get(name, name)
        counts[name] = counts.get(name, 0) + count
    score = 0.0
    for name, count in counts.items():
        exact = labels.count(name)
        found = exact or sum(f" {name} " in f" {label} " for label in labels)
        score += 0.5 * (found > 0) + 0.5 * (found == count)
    return score / len(counts)


def _same(a: Box, b: Box) -> bool:
    both, first, second = overlap(a, b, edge=1)
    return both / min(first, second) > SAME
