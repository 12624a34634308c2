"""Pairs of texts that mean the same: what the bridge reads, and what the own encoder reads.

So a bridge learns, without a picture, to read what the own encoder cannot: free language, other
languages, long texts. A file has a pair a line, `what the bridge reads<TAB>what the own encoder
reads`, and may go on with `<TAB>0-0 3-1 …`: which words stand for which (Pharaoh's format, as word
aligners write it), counted from 0 over what blanks part.
"""

from __future__ import annotations

import hashlib
import random
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.own import own_tokens
from lavi_bridge.config import Match
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home
from lavi_bridge.languages import Language
from lavi_bridge.prompts.readers import lines

Links = tuple[tuple[int, int], ...]
LINK = re.compile(r"(\d+)-(\d+)")
WORLD, GENERATED = "shapes", 20_000
"""The name of the shapes world as a source, and how many pairs it stands for."""


@dataclass(frozen=True)
class Pair:
    """One text for the bridge, and one of the same meaning for the own encoder."""

    ours: str
    theirs: str
    links: Links | None = None
    """Which of our words stand for which of theirs; None where nothing says so."""
    where: str = ""
    """`file:line`, for messages."""

    @staticmethod
    def same(text: str) -> Pair:
        """A text that both read."""
        return Pair(text, text)

    @property
    def known(self) -> bool:
        """Whether it is known which words correspond."""
        return self.links is not None or self.ours == self.theirs

    @property
    def line(self) -> str:
        """What identifies it; a caption that both read is one text."""
        if self.ours == self.theirs and self.links is None:
            return self.ours
        links = " ".join(f"{a}-{b}" for a, b in self.links or ())
        return f"{self.ours}\t{self.theirs}\t{links}"


def open_pairs(source: str | Path, *, seed: int = 0) -> list[Pair]:
    """The pairs that a file holds, or those of the shapes world (`shapes`).

    Raises:
        BridgeError: see `read_pairs`.
    """
    if str(source) != WORLD:
        return read_pairs(at_home(source))
    return list(_generated(GENERATED, seed))


@lru_cache(maxsize=1)
def _generated(count: int, seed: int) -> tuple[Pair, ...]:
    """Pairs of the shapes world, which take seconds to make and are asked for twice by a run."""
    from lavi_bridge.shapes.world import ShapesWorld

    world = ShapesWorld(seed=seed)
    return tuple(Pair(told.text, told.plain, told.links) for told in world.retold(count))


def read_pairs(path: Path) -> list[Pair]:
    """Read a file of pairs; blank lines are skipped.

    Raises:
        BridgeError: it cannot be read, holds none, or a line is malformed (it is named).
    """
    found = [_pair(line, where) for where, line in lines(path, "pairs")]
    if not found:
        raise BridgeError(f"'{path}' holds no pairs")
    return found


def write_pairs(pairs: Iterable[Pair]) -> str:
    """The content of a file of pairs."""
    rows = []
    for pair in pairs:
        cells = [pair.ours, pair.theirs]
        if pair.links is not None:
            cells.append(" ".join(f"{a}-{b}" for a, b in pair.links))
        rows.append("\t".join(cells) + "\n")
    return "".join(rows)


def as_pairs(
    given: str | Path | Sequence[Pair | tuple[str, str]], bridge: Bridge, *, seed: int = 0
) -> Sequence[Pair]:
    """The pairs of a source, or those that are given, each a Pair or two texts.

    Of the shapes world's those that the bridge reads to their end; how many are left out is said.
    """
    if not isinstance(given, str | Path):
        return [pair if isinstance(pair, Pair) else Pair(*pair) for pair in given]
    found = open_pairs(given, seed=seed)
    if str(given) != WORLD:
        return found
    kept = fitting(found, bridge)
    if not kept:
        raise BridgeError(
            f"no pair of the shapes world fits into the {bridge.tokens} tokens that the bridge "
            "reads: let it read more (--tokens)"
        )
    if len(kept) < len(found):
        warnings.warn(
            f"{len(found) - len(kept):,} of {len(found):,} pairs of the shapes world are left out: "
            f"they have more than the {bridge.tokens} tokens that the bridge reads (--tokens)",
            stacklevel=2,
        )
    return kept


def fitting(pairs: Sequence[Pair], bridge: Bridge) -> list[Pair]:
    """Those that the bridge reads to their end."""
    lengths = bridge.language.lengths([pair.ours for pair in pairs])
    return [p for p, length in zip(pairs, lengths, strict=True) if length <= bridge.tokens]


def check_pairs(bridge: Bridge, teacher: Language, pairs: Sequence[Pair], match: Match) -> None:
    """Refuse pairs that a side would not read to their end, or that cannot be matched so.

    Raises:
        BridgeError: a pair is too long (the longest is named), or nothing says which of its words
            correspond where their states are to be matched.
    """
    unknown = [pair for pair in pairs if not pair.known]
    if unknown and match in ("states", "both"):
        raise BridgeError(
            f"{unknown[0].where or 'a pair'}: nothing says which words correspond (so it is with "
            f"{len(unknown)} of {len(pairs)} pairs); match sets or predictions instead"
        )
    ours, theirs = [pair.ours for pair in pairs], [pair.theirs for pair in pairs]
    _check_lengths(pairs, bridge.language.lengths(ours), bridge.tokens, "the bridge")
    limit = tokens_read(teacher, bridge)
    _check_lengths(pairs, teacher.lengths(theirs), limit, "the own encoder")


def readable(captions: Sequence[str], bridge: Bridge, teacher: Language) -> Sequence[str]:
    """Plain captions that the own encoder reads as far as the bridge does; others are counted."""
    limit = tokens_read(teacher, bridge)
    if bridge.tokens <= limit or not captions:
        return captions
    lengths = teacher.lengths(captions)
    kept = [text for text, length in zip(captions, lengths, strict=True) if length <= limit]
    if len(kept) < len(captions):
        warnings.warn(
            f"{len(captions) - len(kept):,} of {len(captions):,} captions are left out of the warm "
            f"start: the own encoder reads only {limit} tokens",
            stacklevel=2,
        )
    return kept


def mixed(captions: Sequence[str], pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Pairs and at most as many captions, which both sides read, in an order of the seed.

    Without captions the pairs' own plain sides are taken for them.
    """
    rng = random.Random(seed)
    captions = captions or [pair.theirs for pair in pairs]
    unique = sorted({caption for caption in captions if caption.strip()})
    rng.shuffle(unique)
    told = list({pair.line: pair for pair in pairs}.values())
    found = [Pair.same(caption) for caption in (unique[: len(told)] if told else unique)]
    if told:
        found += told
        rng.shuffle(found)
    return found


def digest(pairs: Sequence[Pair]) -> str:
    """16 hex digits that identify pairs and their order."""
    return hashlib.sha256("\n".join(pair.line for pair in pairs).encode()).hexdigest()[:16]


def tokens_read(language: Language, bridge: Bridge) -> int:
    """Tokens of a prompt that the own encoder would hand to the bridge's vision model."""
    return own_tokens(language, bridge.vision)


def _check_lengths(pairs: Sequence[Pair], lengths: Sequence[int], limit: int, reader: str) -> None:
    longest = max(range(len(pairs)), key=lambda i: lengths[i], default=None)
    if longest is not None and lengths[longest] > limit:
        over = sum(length > limit for length in lengths)
        raise BridgeError(
            f"{pairs[longest].where or 'a pair'}: {lengths[longest]} tokens, but {reader} reads "
            f"{limit} ({over} of {len(pairs)} pairs are too long): shorten them"
            + (", or let it read more (--tokens)" if reader == "the bridge" else "")
        )


def _pair(line: str, where: str) -> Pair:
    cells = line.split("\t")
    if len(cells) not in (2, 3):
        what = "no tab" if len(cells) == 1 else f"{len(cells) - 1} tabs"
        raise BridgeError(
            f"{where}: {what}; a line is: what the bridge reads<TAB>what the own encoder reads, "
            "and perhaps <TAB>0-0 3-1 … (which words correspond)"
        )
    ours, theirs = cells[0].strip(), cells[1].strip()
    for text, reader in ((ours, "the bridge"), (theirs, "the own encoder")):
        if not text:
            raise BridgeError(f"{where}: what {reader} reads is empty")
    if len(cells) == 2 or not cells[2].strip():
        return Pair(ours, theirs, None, where)
    links = []
    counts = len(ours.split()), len(theirs.split())
    for told in cells[2].split():
        match = LINK.fullmatch(told)
        if match is None or int(match[1]) >= counts[0] or int(match[2]) >= counts[1]:
            raise BridgeError(
                f"{where}: '{told}' links no word to a word: the sides have {counts[0]} and "
                f"{counts[1]} words, counted from 0"
            )
        links.append((int(match[1]), int(match[2])))
    return Pair(ours, theirs, tuple(links), where)
