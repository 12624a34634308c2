"""Which objects a prompt of T2I-CompBench relates, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from lavi_bridge.metrics.compbench.boxes import Box
from lavi_bridge.metrics.compbench.quirks import Mode

if TYPE_CHECKING:
    from spacy.tokens import Doc


VOCABULARY = (
    "on side of",
    "next to",
    "near",
    "on the left of",
    "on the right of",
    "on the bottom of",
    "on the top of",
    "on top of",
)
"""The official relations, in the order in which they are looked for."""
PREPOSITIONS = frozenset(
    {"on top of", "on bottom of", "on the left", "on the right", "next to", "on side of", "near"}
)
"""Where the official code looks for the objects of complex prompts."""
PERSONS = frozenset({"girl", "boy", "man", "woman"})


@dataclass(frozen=True)
class Wanted:
    """What a prompt relates: `first` is `relation` `second`. None is what could not be read."""

    first: str | None
    relation: str | None
    second: str | None


def relation_in(
    doc: Doc,
    *,
    compound: bool = False,
    mode: Mode = "faithful",
    vocabulary: Sequence[str] = VOCABULARY,
) -> Wanted:
    """Read the relation and its two objects from a parsed prompt.

    Args:
        doc: the prompt.
        compound: whether it is one of the complex category; the official code reads the objects
            of others ("a cat on the left of a box") in a simpler way.
        mode: see QUIRKS.
        vocabulary: the relations that the official code looks for, in its order.
    """
    if mode == "fixed":
        return _fixed(doc)
    relation = next((known for known in vocabulary if known in doc.text), None)
    nouns = _around(doc) if compound else [token.text for token in doc if token.pos_ == "NOUN"]
    if not nouns or (compound and len(nouns) != 2):
        return Wanted(None, relation, None)
    first, second = ("person" if n in PERSONS else n for n in (nouns[0], nouns[-1]))
    return Wanted(first, relation, second)


def _around(doc: Doc) -> list[str]:
    """The nearest noun before and after each preposition; a name also serves.

    A name after a preposition serves only where no noun follows, and where it is not the last word.
    """
    found: list[str | None] = []
    for start in range(len(doc)):
        for length in (3, 2, 1):
            if doc[start : start + length].text not in PREPOSITIONS:
                continue
            before = reversed(list(doc[:start]))
            rest = list(doc[start + length :])
            found.append(next((t.text for t in before if t.pos_ in ("NOUN", "PROPN")), None))
            noun = next((t.text for t in rest if t.pos_ == "NOUN"), None)
            names = (a.text for a, b in pairwise(rest) if a.pos_ == "PROPN" and b.pos_ != "PROPN")
            found.append(noun or next(names, None))
            break
    return [name for name in found if name is not None]


_RELATION = re.compile(
    r"\b(?:(?:on|to|at|by) (?:the )?(?P<place>left|right|top|bottom|side) of"
    r"|(?P<close>next to|near))\b",
    re.IGNORECASE,
)


def _fixed(doc: Doc) -> Wanted:
    match = _RELATION.search(doc.text)
    if match is None:
        return Wanted(None, None, None)
    place = (match["place"] or "").lower()
    relation = "on side of" if place == "side" else f"on the {place} of" if place else match[0]
    return beside(doc, match, relation.lower())


def beside(doc: Doc, match: re.Match[str], relation: str) -> Wanted:
    """The nouns of the noun chunks before and after a place in the text, the relation between."""
    names = [
        (chunk, " ".join(token.text for token in chunk if token.pos_ in ("NOUN", "PROPN")))
        for chunk in doc.noun_chunks
    ]
    before = [name for chunk, name in names if name and chunk.end_char <= match.start()]
    after = [name for chunk, name in names if name and chunk.start_char >= match.end()]
    return Wanted(before[-1] if before else None, relation, after[0] if after else None)


def pairs(
    boxes: Sequence[Box], wanted: Wanted, *, mode: Mode = "faithful"
) -> list[tuple[Box | None, Box | None]]:
    """The detections that may stand for the two objects; the best pair counts."""
    if mode == "fixed":
        boxes = sorted(boxes, key=lambda box: -box.confidence)
    first, second = (
        [box for box in boxes if box.label == name] for name in (wanted.first, wanted.second)
    )
    if mode == "fixed" and wanted.first == wanted.second:
        a, b = (*first[:2], None, None)[:2]
        return [(a, b), (b, a)]
    return [(first[0] if first else None, second[0] if second else None)]
