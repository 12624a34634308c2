"""Does a rewritten text still say what the short one said? What words alone can tell.

Numbers, basic colours and sides can be looked for; most of a text cannot, so a text that passes is
not proven true.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

WORD = re.compile(r"[a-z]+|\d+")
NUMBERS: dict[str, tuple[str, ...]] = {
    "one": ("1", "single"),
    "two": ("2", "pair", "couple", "both", "twin", "duo"),
    "three": ("3", "trio"),
    "four": ("4", "quartet"),
    "five": ("5",),
    "six": ("6",),
    "seven": ("7",),
    "eight": ("8",),
    "nine": ("9",),
    "ten": ("10",),
    "dozen": ("12", "twelve"),
}
"""Words for a number, and what else says it."""
COLORS: dict[str, tuple[str, ...]] = {
    "red": (),
    "orange": (),
    "yellow": (),
    "green": (),
    "blue": (),
    "purple": ("violet",),
    "violet": ("purple",),
    "pink": (),
    "brown": (),
    "black": (),
    "white": (),
    "gray": ("grey",),
    "gold": ("golden",),
    "silver": (),
    "cyan": ("turquoise", "aqua"),
}
SIDES: dict[str, tuple[str, ...]] = {
    "left": (),
    "right": (),
    "above": ("over", "top", "atop", "overhead"),
    "below": ("under", "beneath", "underneath"),
}
OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Check:
    """What a rewritten text no longer says, and what it says otherwise."""

    lost: tuple[str, ...]
    contradicted: tuple[str, ...]
    """Lost, and another number or side is told that the short text does not have."""

    @property
    def good(self) -> bool:
        return not self.lost


def check(short: str, text: str) -> Check:
    """Look for the numbers, colours and sides of a short text in one that was made of it."""
    before, after = WORD.findall(short.lower()), WORD.findall(text.lower())
    lost, contradicted = [], []
    for known in (NUMBERS, COLORS, SIDES):
        was, there = _told(before, known), _told(after, known)
        gone = [word for word in was if word not in there]
        new = [word for word in there if word not in was]
        lost += gone
        if known is NUMBERS and set(new) - {"one"}:
            contradicted += gone
        elif known is SIDES:
            contradicted += [word for word in gone if OPPOSITES[word] in new]
    return Check(tuple(lost), tuple(contradicted))


def _told(words: Sequence[str], known: dict[str, tuple[str, ...]]) -> list[str]:
    """Which of the known words a text has, by themselves or by what else says them."""
    return [key for key, others in known.items() if any(word in (key, *others) for word in words)]
