"""What somebody asks to see: every setting of a drawing in one frozen value, checked at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

from annotated_types import Ge, Le, Lt

from lavi_bridge.config import SCALES, Sampling, check_bounds
from lavi_bridge.errors import BridgeError
from lavi_bridge.show.output import whole

MOST_CHARACTERS = 10_000
"""Of a prompt; no text encoder reads as many."""
Strength = Annotated[float, Ge(-4), Le(4)]
WHOLE = "seed", "steps", "height", "width"
NUMBERS = "guidance", *SCALES


@dataclass(frozen=True)
class Request:
    """One picture: a prompt and how it is drawn; None is the model's own.

    Raises:
        BridgeError: a value is out of range; it is named.
    """

    prompt: str
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0
    steps: Annotated[int, Ge(1), Le(500)] | None = None
    guidance: Annotated[float, Ge(0), Le(100)] | None = None
    negative: str = ""
    height: Annotated[int, Ge(8), Le(2048)] | None = None
    width: Annotated[int, Ge(8), Le(2048)] | None = None
    scheduler: str | None = None
    language_scale: Strength = 1.0
    vision_scale: Strength = 1.0
    adapter_scale: Strength = 1.0

    def __post_init__(self) -> None:
        for name in ("prompt", "negative"):
            text = getattr(self, name)
            if len(text) > MOST_CHARACTERS:
                raise BridgeError(
                    f"'{name}' has {len(text):,} characters; give at most {MOST_CHARACTERS:,}"
                )
        check_bounds(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Request:
        """Read what a form gives: numbers as such or as text, nothing for the model's own.

        Raises:
            BridgeError: a value is of another kind or out of range, or there is no prompt.
        """
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise BridgeError(f"unknown setting '{name}'")
            if value is None or (isinstance(value, str) and not value.strip()):
                continue
            given[name] = _read(name, value)
        if not given.get("prompt", "").strip():
            raise BridgeError("write a prompt first")
        return cls(**given)

    def sampling(self, strengths: tuple[str, ...]) -> Sampling:
        """As `generate` takes it; strengths other than the named ones are left as trained."""
        left = {"prompt", *SCALES} - {*strengths}
        return Sampling(**{k: v for k, v in asdict(self).items() if k not in left}, batch_size=1)

    def changed(self, word: str, other: str) -> Request:
        """The same with another word in place of the first such word of the prompt; none leaves it
        out.

        Raises:
            BridgeError: no word is named, or the prompt does not have it.
        """
        if not word.strip():
            raise BridgeError("name the word to change")
        pattern = rf"(?<!\w){re.escape(word.strip())}(?!\w)"
        found = re.search(pattern, self.prompt, re.IGNORECASE)
        if found is None:
            raise BridgeError(f"the prompt has no word '{_short(word)}'")
        start, stop = found.span()
        text = self.prompt[:start] + other.strip() + self.prompt[stop:]
        return replace(self, prompt=" ".join(text.split()))


def _read(name: str, value: Any) -> Any:
    """A value as its setting wants it."""
    if name in WHOLE + NUMBERS:
        number = _number(value)
        kind = "whole number" if name in WHOLE else "number"
        if number is None or (name in WHOLE and not float(number).is_integer()):
            raise BridgeError(f"'{name}' must be a {kind}, not '{_short(value)}'")
        return int(number) if name in WHOLE else float(number)
    if not isinstance(value, str):
        raise BridgeError(f"'{name}' must be text")
    return whole(value)


def _number(value: Any) -> int | float | None:
    """A number, given as one or as text; None where it is none, or has no end."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[+-]?[0-9]{1,30}", text):
            return int(text)
        try:
            value = float(text) if len(text) <= 40 else None
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e30 else None


def _short(value: object) -> str:
    """What fits into a line of a message."""
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else text[:39] + "…"
