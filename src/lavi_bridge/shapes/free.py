"""Free-form language for the shapes world: a plain caption told again as people talk.

The facts stay; words, order and sentences change, and what is said beside the matter comes in.
Which free words stand for which plain ones is known, so a warm start can match them one by one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lavi_bridge.shapes.grammar import plural_of
from lavi_bridge.shapes.plain import (
    JOINTS,
    PHRASE_OF,
    PLAIN_OPENINGS,
    SIZE_OF,
    Noun,
    Plain,
    Word,
    agreeing,
    parse,
)
from lavi_bridge.shapes.scenes import COLORS, SHAPES
from lavi_bridge.shapes.words import (
    HELD_OUT,
    HELD_OUT_PHRASES,
    SEEN,
    SEEN_PHRASES,
    SURVEY,
    Phrases,
)

Kind = Literal["color", "survey", "shape", "texture", "relation", "number", "all"]
"""Whose words are held out; `survey`: colours by the names of a public survey; `texture` has sizes,
too, and `all` everything but the survey."""

KEPT = 0.2
"""How often a word of training is the plain caption's own."""


@dataclass(frozen=True)
class Retold:
    """A free text, and the plain caption that says the same."""

    text: str
    plain: str
    """Settled by the text: things in the order in which it tells them, one wording for one meaning.

    What it leaves open (which of two things a caption begins with, whether it has an opening) would
    move the states that a bridge is to match, and could not be learned.
    """
    links: tuple[tuple[int, int], ...]
    """Which word of `text` stands for which word of `plain`, counted from 0 over what blanks part:
    one or several to one or several."""


def retell(
    plain: str,
    rng: random.Random,
    *,
    held_out: Kind | None = None,
    templates: Literal["seen", "held-out"] = "seen",
    asides: int | None = None,
    synonyms: int | None = None,
    openings: int | None = None,
) -> Retold:
    """Tell a plain caption freely.

    Args:
        held_out: whose words are taken from those that no training text has; others are of it.
        templates: whose openings, endings, orders and further sentences are taken.
        asides: sentences beside the matter; by chance one where not given.
        synonyms, openings: how many of the words, and of the turns of speech, are used at most.

    Raises:
        ValueError: the caption is none of the plain grammar.
    """
    if not plain:
        return Retold("", "", ())
    phrases = SEEN_PHRASES if templates == "seen" else HELD_OUT_PHRASES
    words = _Words(rng, held_out, synonyms)
    return _Teller(parse(plain), words, phrases, asides, openings).tell()


def seen_words() -> set[str]:
    """Every word that a training text can hold, in small letters and without marks."""
    phrases = [p for values in SEEN.values() for p in values] + list(SEEN)
    phrases += [p for values in vars(SEEN_PHRASES).values() for p in values]
    phrases += [plural_of(noun) for shape in SHAPES for noun in (shape, *SEEN[shape])]
    phrases += [*PLAIN_OPENINGS, *JOINTS, *PHRASE_OF, *SIZE_OF, "it is", "an"]
    return {word.strip(".,:") for phrase in phrases for word in phrase.split()}


# ---- how it is told


class _Words:
    """Chooses a word for what is meant."""

    def __init__(self, rng: random.Random, held_out: Kind | None, most: int | None) -> None:
        self.rng, self.held_out, self.most = rng, held_out, most

    def __call__(self, key: str, own: str, kind: str) -> str:
        """A word for `key`, whose plain word is `own`.

        Args:
            kind: what it is about, as in Kind.
        """
        if key in SURVEY and self.held_out == "survey":
            return self.rng.choice(SURVEY[key])
        if self.held_out in (kind, "all"):
            return self.rng.choice(HELD_OUT[key])
        seen = SEEN[key][: self.most]
        if not seen or self.rng.random() < KEPT:
            return own
        return self.rng.choice(seen)


Piece = tuple[str, tuple[int, ...]]
"""Text, and the plain words that it stands for; none for what only the free text has."""


class _Teller:
    """Tells one caption."""

    def __init__(
        self,
        said: Plain,
        words: _Words,
        phrases: Phrases,
        asides: int | None,
        openings: int | None,
    ) -> None:
        self.said, self.words, self.rng, self.phrases = said, words, words.rng, phrases
        self.asides, self.openings = asides, openings

    def tell(self) -> Retold:
        nouns, joints = list(self.said.nouns), list(self.said.joints)
        before, after = self._beside()
        pieces: list[Piece] = [(aside, ()) for aside in before]
        ground = self._ground()
        fronted = bool(ground) and self.rng.random() < 0.25
        if fronted:
            pieces += [*ground, (",", ())]
        pieces.append((self._one(self.phrases.openings), ()))
        if not joints:
            pieces += self._noun(nouns[0])
        elif PHRASE_OF.keys() & {word.text for word in joints[0]}:
            pieces += self._related(nouns[0], joints[0], nouns[1])
        else:
            pieces += self._joined(nouns[0], joints[0], nouns[1])
        for joint, noun in zip(joints[1:], nouns[2:], strict=True):
            pieces += [*self._joint(joint), *self._noun(noun)]
        if not fronted:
            pieces += ground
        if ending := self._one(self.phrases.endings):
            pieces.append((ending, ()))
        if after:
            pieces += [(".", ()), *((aside, ()) for aside in after)]
        return _assembled(pieces, self.said)

    def _beside(self) -> tuple[list[str], list[str]]:
        """Sentences before and after."""
        count = self.asides
        if count is None:
            count = int(self.rng.random() < 0.25)
        chosen = self.rng.sample(self._few(self.phrases.asides), count)
        split = self.rng.randint(0, count)
        return chosen[:split], chosen[split:]

    def _noun(self, noun: Noun) -> list[Piece]:
        told = [(self._adjective(key, word), word.at) for key, word in noun.adjectives]
        shape = self.words(noun.shape.text, noun.shape.text, "shape")
        shape = plural_of(shape) if noun.plural else shape
        late: list[Piece] = []
        if noun.plural:
            head = self.words(noun.head.text, noun.head.text, "number")
        else:
            head = "a"
            if self.rng.random() < 0.25:  # a disc that is red
                late = [(self._one(self.phrases.painted), ()), told.pop()]
            if self.rng.random() < 0.2:
                self.rng.shuffle(told)
        return [(head, noun.head.at), *told, (shape, noun.shape.at), *late]

    def _adjective(self, key: str, word: Word) -> str:
        kind = "color" if key in COLORS else "texture"
        return self.words(key, word.text, kind)

    def _joined(self, a: Noun, joint: list[Word], b: Noun) -> list[Piece]:
        """Two things, in any order, in one sentence or two."""
        if self.rng.random() < 0.5:
            a, b = b, a
            self.said.nouns[:2] = a, b
        if self.rng.random() < 0.25:
            other = self._one(self.phrases.others)
            return [*self._noun(a), (".", ()), (other, joint[0].at), *self._noun(b)]
        return [*self._noun(a), *self._joint(joint), *self._noun(b)]

    def _related(self, a: Noun, joint: list[Word], b: Noun) -> list[Piece]:
        """Two things and where the first lies."""
        relation = self._joint(joint)
        first, second = self._noun(a), self._noun(b)
        chance = self.rng.random()
        if self.phrases is HELD_OUT_PHRASES and chance < 0.25:
            return [*relation, *second, ("there is", ()), *first]
        if self.phrases is SEEN_PHRASES and chance < 0.25:
            return [*first, (".", ()), ("it is", ()), *relation, *second]
        return [*first, (self._one(self.phrases.places), ()), *relation, *second]

    def _joint(self, joint: list[Word]) -> list[Piece]:
        pieces = []
        for word in joint:
            if word.text in PHRASE_OF:
                told = self.words(PHRASE_OF[word.text], word.text, "relation")
            else:
                told = self.words("and", "and", "template")
                if self.phrases is HELD_OUT_PHRASES and len(joint) == 1:
                    told = self.rng.choice(HELD_OUT["and"])
            pieces.append((told, word.at))
        return pieces

    def _ground(self) -> list[Piece]:
        if self.said.background is None:
            return []
        on, color, ground = self.said.background
        noun = SEEN["background"] if self.phrases is SEEN_PHRASES else HELD_OUT["background"]
        return [
            (self._one(self.phrases.grounds), on.at),
            (self.words(color.text, color.text, "background"), color.at),
            (self.rng.choice(["background", *noun]), ground.at),
        ]

    def _one(self, choices: tuple[str, ...]) -> str:
        return self.rng.choice(self._few(choices))

    def _few(self, choices: tuple[str, ...]) -> tuple[str, ...]:
        return choices[: self.openings]


def _assembled(pieces: Sequence[Piece], said: Plain) -> Retold:
    """One text of pieces: articles agree, marks stand at the word before."""
    plain, moved = said.settled()
    words: list[str] = []
    links: list[tuple[int, int]] = []
    for text, sources in pieces:
        if text in (".", ","):
            if words and words[-1][-1] not in ".,:":
                words[-1] += text
            continue
        for word in text.split():
            stand_for = sorted({place for source in sources for place in moved[source]})
            links += [(len(words), place) for place in stand_for]
            words.append(word)
    told = " ".join(agreeing(words))
    return Retold(told, plain, tuple(links))
