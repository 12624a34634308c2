"""Reads the shapes world's plain captions: what each word is, and which facts they state together.

The grammar writes them from scenes; here they are taken apart again, to be told in other words
(`free`), and so that a caption is enough to judge a picture by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from lavi_bridge.shapes.grammar import (
    NUMBERS,
    RELATIONS,
    SIZES,
    Facts,
    ObjectFact,
    Relation,
    plural_of,
)
from lavi_bridge.shapes.scenes import BACKGROUNDS, COLORS, SHAPES, TEXTURES

PLAIN_OPENINGS = ("a picture of", "an image of", "a drawing showing", "there is", "there are")
JOINTS = ("and", "with", "next to")
PHRASE_OF = {phrase: key for key, phrases in RELATIONS.items() for phrase in phrases}
"""`left of` -> left."""
SIZE_OF = {word: key for key, words in SIZES.items() for word in words}


@dataclass(frozen=True)
class Word:
    """Words of a plain caption that are one thing, and where they stand (counted from 0)."""

    text: str
    at: tuple[int, ...]


@dataclass(frozen=True)
class Noun:
    """One thing, or several equal ones."""

    head: Word  # its article or number
    adjectives: tuple[tuple[str, Word], ...]  # key in SEEN, word
    shape: Word
    plural: bool


@dataclass
class Plain:
    """A plain caption, taken apart."""

    nouns: list[Noun] = field(default_factory=list)
    joints: list[list[Word]] = field(default_factory=list)  # before the second noun, and the third
    background: tuple[Word, Word, Word] | None = None  # "on a", "gray", "background"

    def settled(self) -> tuple[str, dict[int, tuple[int, ...]]]:
        """The same in the one wording that all captions of this meaning share.

        There is no opening, one word joins things and each side and size has one name, so that the
        whole follows from the meaning and the order in which things are told.

        Returns:
            The caption, and for each position in the caption that was taken apart those of what
            stands in its place.
        """
        words: list[str] = []
        moved: dict[int, tuple[int, ...]] = {}

        def put(word: Word, text: str) -> None:
            there = tuple(range(len(words), len(words) + len(text.split())))
            words.extend(text.split())
            moved.update(dict.fromkeys(word.at, there))

        for number, noun in enumerate(self.nouns):
            for word in self.joints[number - 1] if number else ():
                put(word, RELATIONS[PHRASE_OF[word.text]][0] if word.text in PHRASE_OF else "and")
            put(noun.head, noun.head.text)
            for key, word in noun.adjectives:
                put(word, SIZES[key][0] if key in SIZES else word.text)
            put(noun.shape, plural_of(noun.shape.text) if noun.plural else noun.shape.text)
        for word in self.background or ():
            put(word, word.text)
        return " ".join(agreeing(words)), moved


def parse(caption: str) -> Plain:
    """Take a plain caption apart.

    Raises:
        ValueError: it is none of the plain grammar.
    """
    reader = _Reader(caption)
    reader.phrase(PLAIN_OPENINGS)
    found = Plain([reader.noun()])
    while not reader.ended:
        if reader.looks_like("on a"):
            on = reader.phrase(["on a"])
            color, ground = reader.word(BACKGROUNDS), reader.word(["background"])
            assert on is not None
            found.background = on, color, ground
            break
        joint = [w for w in (reader.phrase(JOINTS), reader.phrase(PHRASE_OF)) if w]
        if not joint:
            raise reader.error()
        found.joints.append(joint)
        found.nouns.append(reader.noun())
    if not reader.ended:
        raise reader.error()
    return found


def agreeing(words: Sequence[str]) -> Iterator[str]:
    """Words, with an article "a" or "an" as the next one asks for."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("a", "an"):
            vowel = following[:1] in tuple("aeiou") and not following.startswith(("uni", "one-"))
            yield "an" if vowel else "a"
        else:
            yield word


class _Reader:
    """Goes through the words of a plain caption."""

    def __init__(self, caption: str) -> None:
        self.caption, self.words, self.at = caption, caption.split(), 0

    @property
    def ended(self) -> bool:
        return self.at >= len(self.words)

    def looks_like(self, phrase: str) -> bool:
        """Whether it goes on so, and speaks of the background."""
        parts = phrase.split()
        after = self.at + len(parts)
        here = self.words[self.at : after] == parts
        return here and after < len(self.words) and self.words[after] in BACKGROUNDS

    def phrase(self, choices: Iterable[str]) -> Word | None:
        """The longest of the choices that stands here, if one does."""
        for choice in sorted(choices, key=len, reverse=True):
            parts = choice.split()
            if self.words[self.at : self.at + len(parts)] == parts:
                start, self.at = self.at, self.at + len(parts)
                return Word(choice, tuple(range(start, self.at)))
        return None

    def word(self, choices: Iterable[str]) -> Word:
        found = self.phrase(choices)
        if found is None:
            raise self.error()
        return found

    def noun(self) -> Noun:
        head = self.word(["a", "an", *NUMBERS])
        adjectives = []
        while found := self.phrase([*SIZE_OF, *TEXTURES, *COLORS]):
            adjectives.append((SIZE_OF.get(found.text, found.text), found))
        plurals = {plural_of(shape): shape for shape in SHAPES}
        shape = self.word([*SHAPES, *plurals])
        plural = shape.text in plurals
        if plural:
            shape = replace(shape, text=plurals[shape.text])
        return Noun(head, tuple(adjectives), shape, plural)

    def error(self) -> ValueError:
        return ValueError(f"{self.caption!r} is no plain caption of the shapes world")


def stated(caption: str) -> Facts:
    """The facts that a plain caption states: those that the grammar wrote it from.

    Where it tells the texture of one thing, those whose it leaves unsaid are solid, as the grammar
    has it.

    Raises:
        ValueError: the caption is none of the plain grammar.
    """
    plain = parse(caption)
    told = [_stated(noun) for noun in plain.nouns]
    if any(one.texture for one in told):
        told = [replace(one, texture=one.texture or "solid") for one in told]
    objects: list[ObjectFact] = []
    for noun, one in zip(plain.nouns, told, strict=True):
        objects += [one] * (NUMBERS.index(noun.head.text) if noun.plural else 1)
    relations = []
    for number, joint in enumerate(plain.joints, 1):
        keys = [PHRASE_OF[word.text] for word in joint if word.text in PHRASE_OF]
        relations += [Relation(0, number, key) for key in keys]
    background = plain.background[1].text if plain.background else None
    return Facts(tuple(objects), tuple(relations), len(objects), background)


def _stated(noun: Noun) -> ObjectFact:
    told = [key for key, _ in noun.adjectives]
    size = next((key for key in told if key in SIZES), None)
    return ObjectFact(
        noun.shape.text,
        next(key for key in told if key in COLORS),
        next((key for key in told if key in TEXTURES), None),
        None if size is None else size == "large",
    )
