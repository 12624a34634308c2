"""A prompt of an evaluation suite: its text, and what its scorers may know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """One prompt of a suite."""

    id: str
    """Unique in its suite; letters, digits, `-` and `_`, so that it can name a file."""
    text: str
    category: str = ""
    """Part of the suite, as `color` or `two_object`; empty where a suite has no parts."""
    short: str = ""
    """What a long prompt was expanded from; empty for others."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the suite's own file says of it beside the text, JSON values only."""
