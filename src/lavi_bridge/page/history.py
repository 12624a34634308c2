"""What somebody has drawn on a page in this visit, to go back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lavi_bridge.page.request import Request

MOST_ENTRIES = 24
MOST_CHARACTERS = 64_000_000
"""Of all cards that are kept, pictures included: the oldest entries go beyond."""


@dataclass(frozen=True)
class Entry:
    """One drawing with all its settings."""

    number: int
    request: Request
    names: tuple[str, ...]
    cards: tuple[str, ...]
    """What the page showed, column by column."""
    told: str = ""
    """What was done beside drawing: a word changed, a sheet."""
    word: str = ""
    other: str = ""

    def asked(self, row: int) -> Request:
        """What was drawn first, or second: then with the word changed."""
        return self.request.changed(self.word, self.other) if row else self.request

    def with_card(self, slot: int, card: str) -> Entry:
        """The same with another card in one place."""
        return replace(self, cards=(*self.cards[:slot], card, *self.cards[slot + 1 :]))

    @property
    def title(self) -> str:
        """`3 · seed 0 · a red circle`."""
        text = self.request.prompt
        text = text if len(text) <= 60 else text[:59] + "…"
        told = f" · {self.told}" if self.told else ""
        return f"{self.number} · seed {self.request.seed}{told} · {text}"


def added(history: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The history with one more, newest first, and without what is too much."""
    kept, room = [entry], MOST_CHARACTERS - sum(map(len, entry.cards))
    for one in history[: MOST_ENTRIES - 1]:
        room -= sum(map(len, one.cards))
        if room < 0:
            break
        kept.append(one)
    return kept
