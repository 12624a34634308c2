"""Evaluation prompts in free form: the scenes of the plain suite, told as people talk.

Turns of speech are always those that no training text has. The words of the things are those of
training (`free`, `long`), or held out, one kind at a time (`heldout`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from lavi_bridge.shapes.free import Kind, retell
from lavi_bridge.shapes.world import FactPrompt, evaluation_set

PER_CATEGORY = 64
SEED = 777
LONG = 32
"""Prompts of each of LONG_CATEGORIES."""
LONG_CATEGORIES = ("color", "texture", "spatial", "complex")
LONG_ASIDES = 4
"""Sentences of a long prompt beside the matter."""
HELD_OUT: dict[Kind, tuple[str, ...]] = {
    "color": ("color",),
    "survey": ("color",),
    "shape": ("shape",),
    "texture": ("texture", "complex"),
    "relation": ("spatial",),
    "number": ("count",),
}
"""Whose words are held out -> the categories of plain prompts that are told with them."""


@dataclass(frozen=True)
class FreePrompt:
    """A prompt in free form, and the plain one of the same scene."""

    text: str
    plain: str
    category: str
    index: int | None
    """Of the plain one in the plain suite; None for one that was written by hand."""


def free() -> Iterator[FreePrompt]:
    """Every prompt of the plain suite, told in words of training."""
    for index, asked in enumerate(plain_suite()):
        told = retell(asked.text, _rng("free", index), templates="held-out")
        yield FreePrompt(told.text, asked.text, asked.category, index)


def long() -> Iterator[FreePrompt]:
    """Some of them with several sentences beside the matter, before it and after."""
    for category in LONG_CATEGORIES:
        for index, asked in _of(category)[:LONG]:
            rng = _rng("long", index)
            told = retell(asked.text, rng, templates="held-out", asides=LONG_ASIDES)
            yield FreePrompt(told.text, asked.text, category, index)


def heldout() -> Iterator[FreePrompt]:
    """Those that hold a word of a kind, told with one that no training text has."""
    for kind, categories in HELD_OUT.items():
        found = 0
        for index, asked in (pair for category in categories for pair in _of(category)):
            key = f"{kind} held out"
            told = retell(asked.text, _rng(key, index), held_out=kind, templates="held-out")
            other = retell(asked.text, _rng(key, index), templates="held-out")
            if found < PER_CATEGORY and told.text != other.text:
                found += 1
                yield FreePrompt(told.text, asked.text, kind, index)


def by_hand() -> Iterator[FreePrompt]:
    """Prompts that no generator made."""
    content = files("lavi_bridge.shapes").joinpath("by_hand.tsv").read_text(encoding="utf-8")
    for line in content.splitlines()[1:]:
        category, text, plain = line.split("\t")
        yield FreePrompt(text, plain, category, None)


@cache
def plain_suite() -> tuple[FactPrompt, ...]:
    """The plain prompts."""
    return tuple(evaluation_set(PER_CATEGORY, SEED)[0])


def _of(category: str) -> list[tuple[int, FactPrompt]]:
    return [(i, asked) for i, asked in enumerate(plain_suite()) if asked.category == category]


def _rng(kind: str, index: int) -> random.Random:
    return random.Random(f"{SEED} {kind} {index}")
