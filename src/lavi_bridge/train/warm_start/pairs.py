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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.config import Match
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home
from lavi_bridge.languages import Language

Links = tuple[tuple[int, int], ...]
LINK = re.compile(r"(\d+)-(\d+)")
GENERATED = 20_000
"""Pairs that `shapes` stands for."""


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
    if str(source) != "shapes":
        return read_pairs(at_home(source))
    from lavi_bridge.shapes.world import ShapesWorld

    world = ShapesWorld(seed=seed)
    return [Pair(told.text, told.plain, told.links) for told in world.retold(GENERATED)]


def read_pairs(path: Path) -> list[Pair]:
    """Read a file of pairs; blank lines are skipped.

    Raises:
        BridgeError: it cannot be read, holds none, or a line is malformed (it is named).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BridgeError(f"cannot read pairs '{path}': {error.strerror}") from error
    found = []
    for number, raw in enumerate(content.split(b"\n"), 1):
        where = f"{path}:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise BridgeError(f"{where}: not UTF-8 text; save the file as UTF-8") from error
        if line.strip():
            found.append(_pair(line, where))
    if not found:
        raise BridgeError(f"'{path}' holds no pairs")
    return found


def write_pairs(pairs: Iterable[Pair]) -> str:
    """The content of a file of pairs."""
    lines = []
    for pair in pairs:
        cells = [pair.ours, pair.theirs]
        if pair.links is not None:
            cells.append(" ".join(f"{a}-{b}" for a, b in pair.links))
        lines.append("\t".join(cells) + "\n")
    return "".join(lines)


def as_pairs(
    given: str | Path | Sequence[Pair | tuple[str, str]], *, seed: int = 0
) -> Sequence[Pair]:
    """The pairs of a source, or those that are given, each a Pair or two texts."""
    if isinstance(given, str | Path):
        return open_pairs(given, seed=seed)
    return [pair if isinstance(pair, Pair) else Pair(*pair) for pair in given]


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
    return min(bridge.vision.tokens, language.max_tokens or bridge.vision.tokens)


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
    if len(cells) == 2:
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
