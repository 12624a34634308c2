"""What a warm start on states compares, made once a pair: our tokens, and the teacher's states.

A pair is what our language model reads and what the teacher reads: one caption, or two texts that
mean the same. Pairs come in groups and chunks that never change: a group's states are the same bits
whenever they are made, so a start that goes on from its folder ends with the very same weights.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.own import OwnEncoders, own_text
from lavi_bridge.languages import Language, Tokens
from lavi_bridge.languages.layers import kept_part
from lavi_bridge.running.device import to_device
from lavi_bridge.running.seeds import seed_of
from lavi_bridge.text import Text
from lavi_bridge.train.warm_start.alignment import Group, Span, align, equal_words, linked
from lavi_bridge.train.warm_start.pairs import Pair, tokens_read

NULL_SHARE = 16
"""One caption in so many is the empty one: guidance needs its features, too."""
CHUNK = 16
"""Groups that are matched at once: a call of a tokenizer costs as much as dozens of captions."""
READ = 64
"""Captions that the teacher reads at once."""
FEW, SPARED = 8, 0.75
"""Where a batch is parted by length: texts of a part at least, its share of the tokens at most."""
AS_READ = "ids", "mask", "below"
"""What is as long as our tokens; states and what is told of them may be as long as the teacher's
tokens."""


@dataclass(frozen=True)
class Matched:
    """Texts as our language model reads them, and the state that each token should become.

    Where the adapter gives states for the own encoder's tokens, it is these that should become so:
    `states`, `weights`, `loose` and `own` are as long as they, all else as our tokens.
    """

    ids: Tensor  # (texts, tokens)
    mask: Tensor  # (texts, tokens), 1 = it is read
    states: Tensor  # (texts, tokens, teacher's width)
    weights: Tensor  # (texts, tokens): of the tokens' errors, in sum 1; 0 where none is matched
    loose: Tensor  # (texts, tokens): nothing says which of their states is whose
    below: Tensor  # (texts, tokens, our width): enter the first layer that trains, a template's
    # tokens before, or where none does are handed on; 0 wide where all train
    pooled: Tensor  # (texts, teacher's pooled width): the vector beside them; 0 wide without
    own: Tensor  # (texts, tokens, teacher's width): what the own encoder makes of our text; 0 wide
    # where the adapter does not read it

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return sum(tensor.nbytes for tensor in self._parts())

    @cached_property
    def variance(self) -> Tensor:
        """Variance of the states that are to be matched."""
        return self.states[self.weights > 0].float().var()

    @cached_property
    def pooled_variance(self) -> Tensor:
        """Variance of the pooled vectors, each number's around its own mean over the captions."""
        pooled = self.pooled.float()
        # of few captions it would be next to none
        return torch.maximum((pooled - pooled.mean(0)).square().mean(), pooled.var() / 100)

    @staticmethod
    def cat(parts: Sequence[Matched]) -> Matched:
        """Join texts; shorter parts are padded with tokens that are masked and not matched."""
        tokens = max(part.ids.shape[1] for part in parts)
        states = max(part.states.shape[1] for part in parts)
        columns = zip(*(part._padded(tokens, states) for part in parts), strict=True)
        return Matched(*(torch.cat(column) for column in columns))

    def split(self, size: int) -> list[Matched]:
        """Parts of so many texts; the last may be smaller."""
        columns = (part.split(size) for part in self._parts())
        return [Matched(*row) for row in zip(*columns, strict=True)]

    def by_length(self) -> tuple[list[Matched], Tensor]:
        """Parts of texts of about one length, each cut to its longest, and where each text went:
        row i is row `places[i]` of the parts joined.

        Two where both together hold at least a quarter fewer tokens than one, and so on for each.
        """
        lengths = self.mask.sum(1)
        order = lengths.argsort(stable=True)
        cuts = _cuts(lengths[order].tolist())
        parts = [self._some(rows, int(lengths[rows].max())) for rows in order.split(cuts)]
        return parts, order.argsort()

    def _some(self, rows: Tensor, tokens: int) -> Matched:
        """Some texts, without the tokens after the first so many."""
        beyond = self.ids.shape[1] - tokens
        found = []
        for entry in fields(self):
            part = getattr(self, entry.name)[rows]
            ours = entry.name in AS_READ or (entry.name != "pooled" and not self.own.shape[-1])
            found.append(part[:, : part.shape[1] - beyond] if ours and beyond else part)
        return Matched(*found)

    def _parts(self) -> list[Tensor]:
        return [getattr(self, entry.name) for entry in fields(self)]

    def _padded(self, tokens: int, states: int) -> list[Tensor]:
        """All parts, as long as so many tokens of ours and so many states."""
        padded = []
        for entry in fields(self):
            part = getattr(self, entry.name)
            missing = (tokens if entry.name in AS_READ else states) - part.shape[1]
            if missing and entry.name != "pooled":
                part = nn.functional.pad(part, (0, 0) * (part.ndim - 2) + (0, missing))
            padded.append(part)
        return padded


def _cuts(lengths: Sequence[int]) -> list[int]:
    """Into how many texts each to part these, which are sorted by length."""
    count, whole = len(lengths), len(lengths) * lengths[-1]
    cost, cut = min(
        ((k * lengths[k - 1] + (count - k) * lengths[-1], k) for k in range(FEW, count - FEW + 1)),
        default=(whole, 0),
    )
    if cost > SPARED * whole or not cut:
        return [count]
    return [*_cuts(lengths[:cut]), *_cuts(lengths[cut:])]


class Matcher:
    """Matches the tokens of a bridge's language model with those of a teacher.

    Where the adapter gives a state for each token of the own encoder, these are matched: one to one
    where both sides read one text, and as a set where they do not.
    """

    def __init__(self, bridge: Bridge, teacher: Language) -> None:
        self.bridge, self.teacher = bridge, teacher
        self.masked = bridge.vision.masks
        self.upper = kept_part(bridge.language)
        """The language model from its first layer that trains on, or what it hands on where none
        does."""
        self.length = tokens_read(teacher, bridge)
        """Tokens of the teacher."""

    @torch.no_grad()
    def __call__(self, pairs: Sequence[Pair]) -> Matched:
        """Tokenize pairs for both models and let the teacher read them."""
        language = self.bridge.language
        ours = language.tokenize([pair.ours for pair in pairs], self.bridge.tokens)
        ids, mask = self.bridge.read(ours, trim=True)
        if self.bridge.own_encoders is not None and self.bridge.adapter.per_own_token:
            return self._beside(self.bridge.own_encoders, pairs, ids, mask)
        theirs = self.teacher.tokenize([pair.theirs for pair in pairs], self.length)
        targets, loose = self._targets(pairs, ours, theirs, ids.shape[1], mask)
        taught = self._taught([pair.theirs for pair in pairs], theirs)
        states = taught.hidden
        targets = to_device(targets, states.device)
        index = targets.clamp(min=0).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        there = (targets >= 0).float()
        return Matched(
            ids,
            torch.ones_like(ids) if mask is None else mask,
            states.gather(1, index),
            there / there.sum(1, keepdim=True).clamp(min=1),
            loose,
            self._below(ids, mask),
            torch.empty(len(ids), 0) if taught.pooled is None else taught.pooled,
            torch.empty(*ids.shape, 0),
        )

    def _beside(
        self, own: Language, pairs: Sequence[Pair], ids: Tensor, mask: Tensor | None
    ) -> Matched:
        """What is matched where the own encoder's reading of our text is added to."""
        given = self._read_by(own, [pair.ours for pair in pairs])
        states = self._read_by(self.teacher, [pair.theirs for pair in pairs])
        shape = states.shape[:2]
        other = torch.tensor([pair.ours != pair.theirs for pair in pairs])
        return Matched(
            ids,
            torch.ones_like(ids) if mask is None else mask,
            states,
            torch.full(shape, 1 / shape[1], device=states.device),
            other.unsqueeze(1).expand(shape),
            self._below(ids, mask),
            torch.empty(len(ids), 0),  # the own encoder's, which stays
            given,
        )

    def _read_by(self, own: Language, texts: Sequence[str]) -> Tensor:
        """An own encoder's states of texts (texts, its tokens, width)."""
        batches = (texts[start : start + READ] for start in range(0, len(texts), READ))
        vision = self.bridge.vision
        return torch.cat([own_text(own, vision, batch).hidden.to(own.dtype) for batch in batches])

    def hidden(self, matched: Matched) -> Text:
        """Our language model's states of texts, with the mask of what is read."""
        mask = None if not self.masked and bool(matched.mask.all()) else matched.mask
        if self.upper is None:
            hidden = self.bridge.language.hidden(matched.ids, mask)
        else:
            hidden = self.upper.above(matched.below, matched.ids, mask)
        own = Text(matched.own) if matched.own.shape[-1] else None
        return Text(hidden, None if mask is None else to_device(mask, hidden.device), own=own)

    def _targets(
        self, pairs: Sequence[Pair], ours: Tokens, theirs: Tokens, length: int, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """For each token of ours the teacher's that it should become, and whether it is loose."""
        read = [length] * len(pairs)
        if mask is not None and not self.masked:
            read = mask.sum(1).tolist()
        rows = zip(
            pairs,
            self.bridge.language.spans([pair.ours for pair in pairs], self.bridge.tokens),
            self.teacher.spans([pair.theirs for pair in pairs], self.length),
            ours.mask.sum(1).tolist(),
            theirs.mask.sum(1).tolist(),
            read,
            strict=True,
        )
        targets = torch.full((len(pairs), length), -1)
        loose = torch.zeros(len(pairs), length, dtype=torch.bool)
        for row, (pair, a, b, n, m, stop) in enumerate(rows):
            groups = _groups(pair, a[:n], b[:m])
            found = align(a[:stop], b, n, m, masked=self.masked, groups=groups)
            targets[row, :stop] = torch.tensor(found)
            if not pair.known and groups is not None:
                bound = {position for group in groups for position in group[0]}
                loose[row, [i for i in range(n if self.masked else stop) if i not in bound]] = True
        return targets, loose

    def _below(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """What enters the first layer that trains, or is handed on where none does."""
        if self.upper is None:
            return torch.empty(*ids.shape, 0)
        masks = [None] * len(ids) if mask is None else mask.split(READ)
        parts = zip(ids.split(READ), masks, strict=False)
        return torch.cat([self.upper.below(i, m) for i, m in parts])

    def _taught(self, texts: Sequence[str], tokens: Tokens) -> Text:
        """The teacher's states (captions, its tokens, width); of masked padding none."""
        length = min(tokens.longest, self.length) if self.masked else self.length
        if isinstance(self.teacher, OwnEncoders):
            batches = (texts[start : start + READ] for start in range(0, len(texts), READ))
            text = Text.cat([self.teacher.text(batch) for batch in batches])
            return Text(text.hidden[:, :length], pooled=text.pooled)
        ids, mask = tokens.ids[:, :length], tokens.mask[:, :length]
        parts = zip(ids.split(READ), mask.split(READ), strict=True)
        found = [self.teacher.hidden(i, m if self.masked else None) for i, m in parts]
        return Text(torch.cat(found))


class Groups:
    """Pairs in groups, matched a chunk of groups at a time when first asked for.

    Args:
        size: pairs a group.
    """

    def __init__(self, matcher: Matcher, pairs: Sequence[Pair], size: int) -> None:
        self.matcher, self.pairs, self.size = matcher, pairs, size
        self._kept: dict[int, list[Matched]] = {}

    def __len__(self) -> int:
        return -(-len(self.pairs) // self.size)

    def __getitem__(self, number: int) -> Matched:
        chunk, place = divmod(number, CHUNK)
        if chunk not in self._kept:
            start = chunk * CHUNK * self.size
            found = self.matcher(self.pairs[start : start + CHUNK * self.size])
            self._kept[chunk] = found.split(self.size)
        return self._kept[chunk][place]

    def forget(self) -> None:
        """Let go of all that is kept."""
        self._kept.clear()


@lru_cache(maxsize=2)
def order_of(seed: int, window: int, visit: int, count: int) -> list[int]:
    """The order of groups in a pass; at first as they are, chunk by chunk."""
    order = list(range(count))
    if visit:
        random.Random(seed_of(seed, "groups", window, visit)).shuffle(order)
    return order


def _groups(pair: Pair, ours: Sequence[Span], theirs: Sequence[Span]) -> list[Group] | None:
    """Which tokens of a pair belong together; None where both read one text."""
    if pair.ours == pair.theirs and pair.links is None:
        return None
    texts = pair.ours, pair.theirs
    links = equal_words(texts) if pair.links is None else pair.links
    return linked(texts, (ours, theirs), links)


def unlike(text: Text, matched: Matched, scale: Matched) -> Tensor:
    """Squared difference to the teacher's states over their variance, by caption (captions,).

    Where the vision model reads a pooled vector, the mean of this and the same of that.

    Args:
        text: as the vision model reads it of the bridge.
        scale: the captions whose variance is taken.
    """
    given, states = text.hidden.float(), matched.states
    if bool(matched.loose.any()):
        states = assigned(given, states, matched.loose)
    errors = (given - states.float()).square().mean(-1)
    found = (errors * matched.weights).sum(1) / scale.variance
    if text.pooled is None or not matched.pooled.shape[1]:
        return found
    pooled = (text.pooled - matched.pooled.float()).square().mean(-1)
    return (found + pooled / scale.pooled_variance) / 2


def assigned(given: Tensor, states: Tensor, loose: Tensor) -> Tensor:
    """The teacher's states (texts, tokens, width), each loose one with the token nearest to it.

    Of every text the loose states are dealt out anew, so that the squared differences to what is
    given are least in all (the assignment problem): their order does not count, as for a
    cross-attention.
    """
    from scipy.optimize import linear_sum_assignment

    dealt, given = states.clone(), given.detach()
    rows = loose.any(1).nonzero().flatten()
    whole = None
    if bool(loose[rows].all()):  # at once
        whole = torch.cdist(given[rows].float(), states[rows].float()).cpu()
    for number, row in enumerate(rows.tolist()):
        places = loose[row].nonzero().flatten()
        if whole is None:
            cost = torch.cdist(given[row, places].float(), states[row, places].float()).cpu()
        else:
            cost = whole[number]
        if not bool(cost.isfinite().all()):
            continue  # the loss tells it
        _, best = linear_sum_assignment(cost.square().numpy())
        dealt[row, places] = states[row, places[torch.from_numpy(best)]]
    return dealt
