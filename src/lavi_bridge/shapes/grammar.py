"""What is said of a scene: captions from a small grammar, and the facts that each one states.

The order of the random draws is part of the data: the evaluation prompts depend on it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lavi_bridge.shapes.scenes import (
    BACKGROUNDS,
    CLEAR,
    COLORS,
    SHAPES,
    TEXTURES,
    Figure,
    Scene,
    check_category,
)

Length = Literal["short", "mixed", "long"]

NUMBERS = ("zero", "one", "two", "three", "four")
SIZES = {"large": ("large", "big", "huge"), "small": ("small", "little", "tiny")}
RELATIONS = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "above": ("above", "on top of", "over"),
    "below": ("below", "under", "beneath"),
}
OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}
OPENINGS = ("", "", "a picture of ", "an image of ", "a drawing showing ")
COUNT_OPENINGS = ("", "", "a picture of ", "there are ", "an image of ")


@dataclass(frozen=True)
class ObjectFact:
    """What a caption requires of one object; None where it leaves the matter open."""

    shape: str
    color: str
    texture: str | None = None
    large: bool | None = None


@dataclass(frozen=True)
class Relation:
    """The object at index `first` lies on this side of the one at `second`: a key of RELATIONS."""

    first: int
    second: int
    relation: str


@dataclass(frozen=True)
class Facts:
    """All that a caption requires of a picture."""

    objects: tuple[ObjectFact, ...]
    relations: tuple[Relation, ...]
    count: int
    background: str | None = None


def relation_of(dx: float, dy: float) -> str:
    """Where a point lies that is dx to the right of and dy below another: a key of RELATIONS."""
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def caption(
    scene: Scene, rng: random.Random, category: str | None = None, length: Length = "mixed"
) -> tuple[str, Facts]:
    """A caption and the facts that it states.

    "mixed" tells by chance, or what the evaluation category is about; "short" tells colours, shapes
    and perhaps a relation; "long" tells every fact. None has more than 30 words.
    """
    check_category(category)
    if length not in get_args(Length):
        raise ValueError(f"unknown length {length!r}; known: {', '.join(get_args(Length))}")
    return _Writer(scene, rng, category, length).write()


class _Writer:
    """Writes one caption and notes the facts that it tells."""

    def __init__(
        self, scene: Scene, rng: random.Random, category: str | None, length: Length
    ) -> None:
        self.scene, self.rng, self.category, self.length = scene, rng, category, length
        self.objects: list[ObjectFact] = []
        self.relations: list[Relation] = []

    def write(self) -> tuple[str, Facts]:
        background = self.scene.background if self.topical(0.25, "complex") else None
        sentence = {
            "single": self.single,
            "pair": self.pair,
            "count": self.counted,
            "complex": self.composition,
        }[self.scene.kind]
        text = sentence()
        if background:
            text += f" on a {background} background"
        count = len(self.scene.figures)
        return text, Facts(tuple(self.objects), tuple(self.relations), count, background)

    def single(self) -> str:
        return self.opening() + self.tell(0, texture=self.sometimes(0.7), size=self.sometimes(0.5))

    def pair(self) -> str:
        texture, size = self.topical(0.4, "texture"), self.topical(0.25)
        a, b = self.tell(0, texture=texture, size=size), self.tell(1, texture=texture, size=size)
        if self.relates():
            relation = self.relate(0, 1)
            if self.rng.random() >= 0.5:
                a, b, relation = b, a, OPPOSITES[relation]
            return self.opening() + f"{a} {self.rng.choice(RELATIONS[relation])} {b}"
        forms = [f"{self.opening()}{a} and {b}", f"{self.opening()}{b} and {a}"]
        if self.length != "short":
            forms += [f"there is {a} next to {b}", f"{a} with {b}"]
        return self.rng.choice(forms)

    def counted(self) -> str:
        texture, size = self.sometimes(0.4), self.sometimes(0.3)
        for index in range(len(self.scene.figures)):
            self.tell(index, texture=texture, size=size)  # for its facts; only the plural is said
        opening = self.opening(COUNT_OPENINGS)
        figures = self.phrase(self.scene.figures[0], texture=texture, size=size)
        number = NUMBERS[len(self.scene.figures)]
        return f"{opening}{number} {plural_of(figures)}"

    def composition(self) -> str:
        full = self.length != "short"
        a, b = self.tell(0, texture=full, size=full), self.tell(1, texture=full, size=full)
        text = f"{a} {self.rng.choice(RELATIONS[self.relate(0, 1)])} {b}"
        if len(self.scene.figures) == 3:
            joint = self.rng.choice([" and ", " with "])
            if self.length == "long" and self.clear(0, 2):
                joint = f" and {self.rng.choice(RELATIONS[self.relate(0, 2)])} "
            text += joint + self.tell(2, texture=full, size=self.length == "long")
        return self.opening() + text

    def sometimes(self, chance: float) -> bool:
        """Whether to tell something: by chance in mixed captions, always in long ones."""
        return self.length == "long" or (self.length == "mixed" and self.rng.random() < chance)

    def topical(self, chance: float, *topics: str) -> bool:
        """The same for what some categories are about, and the other categories leave out."""
        if self.category is None or self.length != "mixed":
            return self.sometimes(chance)
        return self.category in topics

    def relates(self) -> bool:
        """Whether to relate a pair; even short captions may."""
        if self.length == "long" or self.category == "spatial":
            return True
        return self.category is None and self.rng.random() < 0.5

    def opening(self, openings: Sequence[str] = OPENINGS) -> str:
        """Only mixed captions have one: it says nothing of the scene."""
        return self.rng.choice(openings) if self.length == "mixed" else ""

    def tell(self, index: int, *, texture: bool, size: bool) -> str:
        """A figure with its article; notes the facts. A texture left unsaid is solid."""
        figure = self.scene.figures[index]
        self.objects.append(
            ObjectFact(
                figure.shape,
                figure.color,
                figure.texture if texture else None,
                figure.large if size else None,
            )
        )
        words = self.phrase(figure, texture=texture, size=size)
        return ("an " if words[0] in "aeiou" else "a ") + words

    def phrase(self, figure: Figure, *, texture: bool, size: bool) -> str:
        words = []
        if size:
            words.append(self.rng.choice(SIZES["large" if figure.large else "small"]))
        if texture and (figure.texture != "solid" or self.sometimes(0.5)):
            words.append(figure.texture)
        return " ".join([*words, figure.color, figure.shape])

    def relate(self, first: int, second: int) -> str:
        relation = relation_of(*self.offset(first, second))
        self.relations.append(Relation(first, second, relation))
        return relation

    def clear(self, first: int, second: int) -> bool:
        dx, dy = self.offset(first, second)
        return abs(abs(dx) - abs(dy)) > CLEAR

    def offset(self, first: int, second: int) -> tuple[float, float]:
        a, b = self.scene.figures[first], self.scene.figures[second]
        return a.x - b.x, a.y - b.y


def alt_text(scene: Scene, rng: random.Random) -> str:
    """Noisy alt-text, as early image models learned from: shuffled words, nothing bound to nothing.

    Colours and shapes, half of the textures that are not solid, each word once.
    """
    words = []
    for figure in scene.figures:
        words += [figure.color, figure.shape]
        if figure.texture != "solid" and rng.random() < 0.5:
            words.append(figure.texture)
    words = list(dict.fromkeys(words))
    rng.shuffle(words)
    return " ".join(words)


def document(scene: Scene, rng: random.Random) -> str:
    """Text that speaks of one scene two or three times: what the language models learn from.

    A caption, then further captions, facts about one figure, or a relation told once more.
    """
    sentences = [caption(scene, rng)[0]]
    for _ in range(rng.randint(1, 2)):
        kind = rng.random()
        if kind < 0.35:
            sentences.append(caption(scene, rng)[0])
        elif kind < 0.7 or len(scene.figures) == 1 or scene.kind == "count":
            sentences += _fact(scene, rng)
        else:
            first, second = rng.choice([(0, 1), (1, 0)])
            a, b = scene.figures[first], scene.figures[second]
            relation = rng.choice(RELATIONS[relation_of(a.x - b.x, a.y - b.y)])
            sentences.append(f"the {a.color} {a.shape} is {relation} the {b.color} {b.shape}")
    return " . ".join(sentences)


def _fact(scene: Scene, rng: random.Random) -> list[str]:
    """One fact about one figure; none where "the square" could be two of them."""
    figure = rng.choice(scene.figures)
    if scene.kind == "count":
        noun = plural_of(figure.shape)
        number = NUMBERS[len(scene.figures)]
        return [rng.choice([f"there are {number} {noun}", f"the color is {figure.color}"])]
    if sum(other.shape == figure.shape for other in scene.figures) > 1:
        return []
    size = "large" if figure.large else "small"
    return [f"the {figure.shape} is {rng.choice([figure.color, figure.texture, size])}"]


def plural_of(noun: str) -> str:
    """More than one of a thing: crosses, boxes, plus signs."""
    return noun + ("es" if noun.endswith(("s", "x", "sh", "ch")) else "s")


def vocabulary() -> tuple[str, ...]:
    """Every word that captions, and texts about scenes ("the color is red ."), can hold; sorted."""
    phrases = [*SHAPES, *map(plural_of, SHAPES), *COLORS, *TEXTURES, *BACKGROUNDS, *NUMBERS]
    phrases += [*OPENINGS, *COUNT_OPENINGS]
    phrases += [phrase for choices in (SIZES, RELATIONS) for p in choices.values() for phrase in p]
    phrases.append("there is a an next to and with on background the color .")
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))
