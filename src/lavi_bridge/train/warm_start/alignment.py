"""Which tokens of two tokenizers stand at the same place of a text, found by their characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

Span = tuple[int, int]
"""First and last + 1 character that a token covers; (0, 0) for marks and padding."""
Group = tuple[Sequence[int], Sequence[int]]
"""Positions of tokens, ours and theirs, that stand for the same."""


def align(
    ours: Sequence[Span],
    theirs: Sequence[Span],
    our_count: int,
    their_count: int,
    *,
    masked: bool = False,
    groups: Sequence[Group] | None = None,
) -> list[int]:
    """For each of our token positions the one of theirs whose state it should take; -1 for none.

    Tokens that cover the same characters belong together: the last piece of a word takes the last
    piece's state, which in a causal model alone has read the whole word. A cross-attention does not
    see the order of the text, so where nothing is masked the other positions are matched one to one
    as well, whatever they stand for: marks with marks, padding with padding at the same place, and
    what is left over in order. The vision model then reads the very same set of states. Where
    padding is masked only real tokens count, and further pieces of a word repeat its state.

    Args:
        ours, theirs: the characters that each token covers; (0, 0) for marks and padding.
        our_count, their_count: how many of them are real tokens.
        groups: positions that belong together, ours and theirs, where the texts differ; by default
            those that cover the same characters of one text.
    """
    target = [-1] * len(ours)
    free = dict.fromkeys(range(their_count if masked else len(theirs)))  # an ordered set
    repeats: dict[int, int] = {}

    def pair(a: int, b: int) -> None:
        target[a] = b
        free.pop(b, None)

    if groups is None:
        groups = list(_groups(ours[:our_count], theirs[:their_count]))
    for mine, their in groups:
        for a, b in zip(reversed(mine), reversed(their), strict=False):
            pair(a, b)
        repeats |= {a: their[-1] for a in mine if target[a] < 0}
    early, late = _pair_marks(ours[:our_count], theirs[:their_count], pair)
    if masked:
        for a in range(our_count):
            if target[a] < 0:
                spare = next(iter(free), their_count - 1)
                pair(a, repeats.get(a, spare))
        return target
    # marks that ours lack have a fixed place in the padding: ends first, starts last
    padding = [a for a in range(our_count, len(ours)) if target[a] < 0]
    for a, b in [*zip(padding, late, strict=False), *zip(reversed(padding), early, strict=False)]:
        pair(a, b)
    for position in range(max(our_count, their_count), min(len(ours), len(theirs))):
        if target[position] < 0 and position in free:
            pair(position, position)  # padding in both
    for a in range(len(ours)):
        if target[a] < 0:
            pair(a, next(iter(free), len(theirs) - 1))
    return target


def linked(
    texts: tuple[str, str], spans: tuple[Sequence[Span], Sequence[Span]], links: Sequence[Span]
) -> list[Group]:
    """Positions, ours and theirs, of tokens whose words are linked, directly or by others.

    Marks at the ends of a word, such as a comma, are no part of it.

    Args:
        links: numbers of words, ours and theirs.
    """
    words = tuple([_bare(match) for match in re.finditer(r"\S+", text)] for text in texts)
    groups: list[Group] = []
    for ours, theirs in _joined(links):
        found: list[list[int]] = []
        for side, numbers in enumerate((ours, theirs)):
            wanted = [words[side][number] for number in numbers]
            covered = [
                position
                for position, (start, stop) in enumerate(spans[side])
                if stop > start and any(start < b and stop > a for a, b in wanted)
            ]
            found.append(covered)
        if found[0] and found[1]:
            groups.append((found[0], found[1]))
    return groups


def equal_words(texts: tuple[str, str]) -> list[Span]:
    """Links between words that either text has once, and that are the same."""
    both = [[word.lower().strip(".,;:!?") for word in text.split()] for text in texts]
    once = [{word for word in words if words.count(word) == 1} for words in both]
    return [(both[0].index(w), both[1].index(w)) for w in sorted(once[0] & once[1])]


def _bare(match: re.Match[str]) -> Span:
    word = match.group()
    inside = re.search(r"\w(.*\w)?", word)
    if inside is None:
        return match.span()
    return match.start() + inside.start(), match.start() + inside.end()


def _joined(links: Sequence[Span]) -> Iterator[tuple[set[int], set[int]]]:
    """Words that are linked with each other, by whatever way."""
    groups: list[tuple[set[int], set[int]]] = []
    for a, b in links:
        ours, theirs = {a}, {b}
        for group in [g for g in groups if a in g[0] or b in g[1]]:
            groups.remove(group)
            ours |= group[0]
            theirs |= group[1]
        groups.append((ours, theirs))
    yield from groups


def _groups(ours: Sequence[Span], theirs: Sequence[Span]) -> Iterator[tuple[list[int], list[int]]]:
    """Positions, ours and theirs, of tokens that cover overlapping characters."""
    tokens = [(span, 0, i) for i, span in enumerate(ours) if span != (0, 0)]
    tokens += [(span, 1, i) for i, span in enumerate(theirs) if span != (0, 0)]
    group: tuple[list[int], list[int]] = ([], [])
    reached = 0
    for (start, stop), side, position in sorted(tokens):
        if start >= reached and group != ([], []):
            if group[0] and group[1]:
                yield group
            group = ([], [])
        group[side].append(position)
        reached = max(reached, stop)
    if group[0] and group[1]:
        yield group


def _pair_marks(
    ours: Sequence[Span], theirs: Sequence[Span], pair: Callable[[int, int], None]
) -> tuple[list[int], list[int]]:
    """Pair what stands before the first word with its like, and what stands after the last.

    Returns those of theirs that found none: before the first word, after the last.
    """
    left = []
    for mine, their in zip(_marks(ours), _marks(theirs), strict=True):
        for a, b in zip(mine, their, strict=False):
            pair(a, b)
        left.append(their[len(mine) :])
    return left[0], left[1]


def _marks(spans: Sequence[Span]) -> tuple[list[int], list[int]]:
    words = [i for i, span in enumerate(spans) if span != (0, 0)]
    first, last = (words[0], words[-1]) if words else (1, len(spans) - 2)  # "": start, …, end
    marks = [i for i, span in enumerate(spans) if span == (0, 0)]
    return [i for i in marks if i < first], [i for i in marks if i > max(last, first - 1)]
