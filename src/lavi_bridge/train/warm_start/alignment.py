"""Which tokens of two tokenizers stand at the same place of a text, found by their characters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

Span = tuple[int, int]
"""First and last + 1 character that a token covers; (0, 0) for marks and padding."""


def align(
    ours: Sequence[Span],
    theirs: Sequence[Span],
    our_count: int,
    their_count: int,
    *,
    masked: bool = False,
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
    """
    target = [-1] * len(ours)
    free = dict.fromkeys(range(their_count if masked else len(theirs)))  # an ordered set
    repeats: dict[int, int] = {}

    def pair(a: int, b: int) -> None:
        target[a] = b
        free.pop(b, None)

    for mine, their in _groups(ours[:our_count], theirs[:their_count]):
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
