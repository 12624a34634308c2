"""Pairs of scenes that differ in one fact, each with a text that is true of it alone.

Each text is asked about both pictures: half of the answers are Yes, whichever text or picture one
looks at, so that a judge that sees no picture, or reads no text, is at chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Resampling

from lavi_bridge.shapes.free import retell
from lavi_bridge.shapes.grammar import NUMBERS, OPPOSITES, RELATIONS, caption, plural_of
from lavi_bridge.shapes.plain import PHRASE_OF, Noun, Plain, agreeing, parse, stated
from lavi_bridge.shapes.scenes import (
    BACKGROUNDS,
    CATEGORIES,
    COLORS,
    SHAPES,
    TEXTURES,
    Scenes,
    draw_scenes,
    pictures,
)
from lavi_bridge.shapes.scorer import score

if TYPE_CHECKING:
    from PIL.Image import Image

CHANGES: dict[str, tuple[str, ...]] = {
    "color": ("another color", "swapped colors"),
    "shape": ("another shape", "swapped shapes"),
    "texture": ("another texture", "swapped textures"),
    "spatial": ("swapped places",),
    "count": ("one more",),
    "complex": (
        "another color",
        "another shape",
        "another texture",
        "swapped places",
        "another background",
    ),
}
"""By category, what a pair may differ in; pairs take turns."""
TEXTS = ("plain", "free", "long")
ASIDES = 4
"""Sentences of a long text beside the matter."""
ARGUABLE = {"next to", "on top of", "over"}
"""Words that a picture may be said not to show although the grammar has it that it does."""
ATTEMPTS = 1000
"""Scenes that are drawn for a pair before it is given up; of textures one in 18 will do."""


@dataclass(frozen=True)
class Atom:
    """One question about the fact in which a pair differs."""

    question: str
    answer: str
    """Right of the own scene, and wrong of the other."""
    yes_no: str
    """The same as a question that is answered with Yes of the own scene, and No of the other."""


@dataclass(frozen=True)
class Pair:
    """Two scenes, and what is true of the first alone and of the second alone."""

    id: str
    category: str
    change: str
    """In what they differ: one of CHANGES."""
    scenes: Scenes
    """Two."""
    texts: Mapping[str, tuple[str, str]]
    """By kind of text, one of TEXTS."""
    atoms: tuple[Atom, Atom]

    def pictures(self, side: int) -> tuple[Image, Image]:
        """Both as RGB pictures of `side` pixels."""
        first, second = (
            one.resize((side, side), Resampling.BICUBIC) for one in pictures(self.scenes)
        )
        return first, second


def pairs(category: str, count: int, seed: int) -> Iterator[Pair]:
    """The first pairs of a category; pair i depends on the seed, the category and i alone.

    That each text is true of its scene and false of the other is known by construction, and the
    exact scorer finds it in the pictures as well.
    """
    for number in range(count):
        yield _pair(category, number, seed)


def _pair(category: str, number: int, seed: int) -> Pair:
    changes, place = CHANGES[category], CATEGORIES.index(category)
    change, name = changes[number % len(changes)], f"{category}-{number:04d}"
    for attempt in range(ATTEMPTS):
        rng = random.Random(f"{seed} {name} {attempt}")
        scene = draw_scenes(1, (seed, place, number, attempt), category)
        text = caption(scene[0], rng, category)[0]
        if any(f" {phrase} " in text for phrase in ARGUABLE) or _is_too_fine(scene, text):
            continue
        made = _CHANGE[change](_Told(scene, text, parse(text)), rng)
        if made is None:
            continue
        other, there, atoms = made
        both = Scenes.concatenate([scene, other])
        if _is_told_apart(both, (text, there)):
            plain = text, there
            return Pair(name, category, change, both, _texts(plain, f"{seed} {name}"), atoms)
    raise AssertionError(f"no scene for {name}")  # the world has too few of them


def _texts(plain: tuple[str, str], key: str) -> dict[str, tuple[str, str]]:
    """A pair's texts in every kind; both are told with the same draws."""

    def told(asides: int) -> tuple[str, str]:
        a, b = (
            retell(text, random.Random(f"{key} {asides}"), templates="held-out", asides=asides).text
            for text in plain
        )
        return a, b

    return {"plain": plain, "free": told(0), "long": told(ASIDES)}


def _is_too_fine(scene: Scenes, text: str) -> bool:
    """Whether a texture is told of a small figure, on which it is two dots or a stripe."""
    told = {*TEXTURES} & {*text.split()}
    return bool(told) and any(
        f.texture in told and f.texture != "solid" and not f.large for f in scene[0].figures
    )


def _is_told_apart(scenes: Scenes, texts: tuple[str, str]) -> bool:
    """Whether the exact scorer finds each text in its own picture, and not in the other."""
    a, b = pictures(scenes)
    mine, yours = map(stated, texts)
    found = [verdict.exact for verdict in score([a, a, b, b], [mine, yours, mine, yours])]
    return found == [True, False, False, True]


# ---- what is changed


@dataclass(frozen=True)
class _Told:
    """A scene of one, its caption, and that taken apart."""

    scene: Scenes
    text: str
    plain: Plain

    def figure(self, noun: Noun) -> int | None:
        """The slot of the one figure with a noun's colour and shape, if there is one."""
        found = [
            slot
            for slot, figure in enumerate(self.scene[0].figures)
            if (figure.color, figure.shape) == (color_of(noun), noun.shape.text)
        ]
        return found[0] if len(found) == 1 else None

    def has(self, **facts: str) -> int:
        """How many figures have these."""
        figures = self.scene[0].figures
        return sum(all(getattr(f, k) == value for k, value in facts.items()) for f in figures)

    def saying(self, changed: Mapping[tuple[int, ...], str]) -> str:
        """The caption with other words in these places."""
        words: list[str] = self.text.split()
        for at, text in changed.items():
            words[at[0]] = text
            for further in at[1:]:
                words[further] = ""
        return " ".join(agreeing(" ".join(words).split()))

    def with_value(self, fact: str, slot: int, value: int) -> Scenes:
        """The scene with another value in a slot."""
        changed = getattr(self.scene, fact).copy()
        changed[0, slot] = value
        return replace(self.scene, **{fact: changed})

    def exchanged(self, facts: Sequence[str], slots: Sequence[int]) -> Scenes:
        """The scene with the values of two slots exchanged."""
        arrays = {fact: getattr(self.scene, fact).copy() for fact in facts}
        for array in arrays.values():
            array[0, [*slots]] = array[0, [*slots[::-1]]]
        return replace(self.scene, **arrays)

    def slots(self, *nouns: Noun) -> list[int] | None:
        """The figures of nouns; None where one of them is not known."""
        found = [self.figure(noun) for noun in nouns]
        known = [slot for slot in found if slot is not None]
        return known if len(known) == len(found) else None


Made = tuple[Scenes, str, tuple[Atom, Atom]]
WORDS = {"color": COLORS, "shape": SHAPES, "texture": TEXTURES}


def color_of(noun: Noun) -> str:
    """A noun's colour."""
    return next(key for key, _ in noun.adjectives if key in COLORS)


def _value(noun: Noun, fact: str) -> tuple[str, tuple[int, ...]] | None:
    """What a noun says of a fact, and where; None where it says nothing."""
    if fact == "shape":
        return noun.shape.text, noun.shape.at
    said = [(key, word.at) for key, word in noun.adjectives if key in WORDS[fact]]
    return said[0] if said else None


def _another(fact: str, told: _Told, rng: random.Random) -> Made | None:
    """One figure gets another value."""
    noun = rng.choice(told.plain.nouns)
    slot, said = told.figure(noun), _value(noun, fact)
    if slot is None or said is None:
        return None
    before, at = said
    # solid may be left unsaid, and a striped thing is striped whatever else is said of it
    others = [word for word in WORDS[fact] if word not in (before, "solid")]
    if before == "solid" or (fact == "color" and told.has(shape=noun.shape.text) > 1):
        return None
    after = rng.choice([word for word in others if not told.has(**{fact: word})] or others)
    if fact == "shape" and told.has(color=color_of(noun), shape=after):
        return None
    other = told.with_value(fact, slot, WORDS[fact].index(after))
    return other, told.saying({at: after}), _asked(fact, noun, before, after)


def _swapped(fact: str, told: _Told, rng: random.Random) -> Made | None:
    """Two figures exchange their values."""
    a, b = told.plain.nouns[:2]
    slots, said, there = told.slots(a, b), _value(a, fact), _value(b, fact)
    if slots is None or said is None or there is None:
        return None
    first, second = said[0], there[0]
    alike = a.shape.text == b.shape.text if fact != "shape" else color_of(a) == color_of(b)
    if first == second or "solid" in (first, second) or alike:
        return None
    text = told.saying({said[1]: second, there[1]: first})
    noun = rng.choice((a, b))
    mine, yours = (first, second) if noun is a else (second, first)
    return told.exchanged([fact], slots), text, _asked(fact, noun, mine, yours)


def _places(told: _Told, rng: random.Random) -> Made | None:
    """The first two figures exchange their places, and stay as large as they were."""
    a, b = told.plain.nouns[:2]
    slots, joint = told.slots(a, b), [w for w in told.plain.joints[0] if w.text in PHRASE_OF]
    if slots is None or not joint or len(set(told.scene.large[0, slots])) > 1:
        return None
    relation = PHRASE_OF[joint[0].text]
    opposite = OPPOSITES[relation]
    phrase = RELATIONS[opposite][RELATIONS[relation].index(joint[0].text)]
    mine, yours = (
        f"Is the {_name(a)} {RELATIONS[key][0]} the {_name(b)}?" for key in (relation, opposite)
    )
    atoms = Atom(mine, "Yes", mine), Atom(yours, "Yes", yours)
    other = told.exchanged(["x", "y", "radius"], slots)
    return other, told.saying({joint[0].at: phrase}), atoms


def _one_more(told: _Told, rng: random.Random) -> Made | None:
    """There is a figure more in one of them."""
    (noun,) = told.plain.nouns
    count = len(told.scene[0].figures)
    if count < 3:  # one thing is not called "one"
        return None
    fewer = replace(told.scene, count=told.scene.count - 1)
    things = f"{color_of(noun)} {plural_of(noun.shape.text)}"
    mine, yours = (
        Atom(
            f"How many {things} are in the image?",
            NUMBERS[number],
            f"Are there exactly {NUMBERS[number]} {things} in the image?",
        )
        for number in (count, count - 1)
    )
    return fewer, told.saying({noun.head.at: NUMBERS[count - 1]}), (mine, yours)


def _background(told: _Told, rng: random.Random) -> Made | None:
    """The paper is the other one."""
    if told.plain.background is None:
        return None
    word = told.plain.background[1]
    (after,) = set(BACKGROUNDS) - {word.text}
    other = replace(told.scene, background=np.array([BACKGROUNDS.index(after)]))
    mine, yours = (f"Is the background {color}?" for color in (word.text, after))
    return (
        other,
        told.saying({word.at: after}),
        (Atom(mine, "Yes", mine), Atom(yours, "Yes", yours)),
    )


def _name(noun: Noun) -> str:
    return f"{color_of(noun)} {noun.shape.text}"


def _asked(fact: str, noun: Noun, before: str, after: str) -> tuple[Atom, Atom]:
    """What is asked where a noun's value is one thing in the first scene, another in the second."""
    asked = []
    for value in (before, after):
        if fact == "shape":
            words = " ".join(agreeing(f"a {color_of(noun)} {value}".split()))
            question = f"Is there {words} in the image?"
        elif fact == "color":
            question = f"Is the {noun.shape.text} {value}?"
        else:
            question = f"Is the {_name(noun)} {value}?"
        asked.append(Atom(question, "Yes", question))
    return asked[0], asked[1]


_CHANGE: dict[str, Callable[[_Told, random.Random], Made | None]] = {
    **{f"another {fact}": partial(_another, fact) for fact in WORDS},
    **{f"swapped {fact}s": partial(_swapped, fact) for fact in WORDS},
    "swapped places": _places,
    "one more": _one_more,
    "another background": _background,
}
