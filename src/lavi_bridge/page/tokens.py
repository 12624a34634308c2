"""A prompt as its readers see it: which tokens, what of it is cut, and what is padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.own import OwnEncoders, own_tokens
from lavi_bridge.errors import BridgeError
from lavi_bridge.languages import Language, load_language
from lavi_bridge.languages.loading.tokenizer import load_tokenizer

Kind = Literal["word", "mark"]


@dataclass(frozen=True)
class Token:
    """One token: the characters that it covers, or the name of a mark such as a start token."""

    text: str
    kind: Kind


@dataclass(frozen=True)
class Reading:
    """What one text encoder reads of a prompt."""

    reader: str
    tokens: tuple[Token, ...]
    limit: int
    """Tokens that it is given at most."""
    needed: int
    """Tokens of the whole prompt."""
    cut: str
    """The end of the prompt that is not read."""
    padding: int
    """Padding tokens that are read like words."""
    masked: int
    """Padding tokens that are there and masked."""


def readings(bridge: Bridge, own: Language | None, prompt: str) -> list[Reading]:
    """What the bridge's language model reads of a prompt, then what the own encoder would."""
    found = []
    if bridge.language.tokenizer is not None:
        found.append(_of_bridge(bridge, prompt))
    if own is not None:
        length = own_tokens(own, bridge.vision)
        found.append(_reading(own, prompt, length, length, bridge.vision.masks))
    return found


def own_reader(bridge: Bridge) -> Language | None:
    """The tokenizer that the image model came with, beside a bridge: of weights only the shapes."""
    if bridge.own_encoders is not None:
        return None if isinstance(bridge.own_encoders, OwnEncoders) else bridge.own_encoders
    vision = bridge.vision
    if vision.own_fields != () or isinstance(bridge.language, OwnEncoders):
        return None
    folder = vision.place / vision.own_text_folder
    try:
        if folder.file("config.json") is None or folder.id == bridge.language.place.id:
            return None
        own = load_language(folder)
        own.tokenizer = load_tokenizer(folder)
    except BridgeError:  # the image model was fetched without it
        return None
    return own


def _of_bridge(bridge: Bridge, prompt: str) -> Reading:
    language = bridge.language
    ids, mask = bridge.read(language.tokenize([prompt], bridge.tokens))
    read = ids.shape[1] if mask is None else int(mask.sum())
    return _reading(language, prompt, bridge.tokens, ids.shape[1], bridge.vision.masks, read)


def _reading(
    language: Language, prompt: str, limit: int, length: int, masks: bool, read: int | None = None
) -> Reading:
    """What is read of `length` tokens, of which the first `read` are not masked."""
    tokens = language.tokenize([prompt], limit)
    real = int(tokens.mask.sum())
    ids = tokens.ids[0, :real].tolist()
    names = language.tokenizer.convert_ids_to_tokens(ids)
    spans = _spans(language, prompt, limit)
    shown, end = [], 0
    for index, name in enumerate(names):
        start, stop = spans[index] if spans else (0, 0)
        end = max(end, stop)
        kind: Kind = "word" if stop or not spans else "mark"
        shown.append(Token(prompt[start:stop] or str(name), kind))
    (needed,) = language.lengths([prompt])
    cut = prompt[end:].strip() if spans and needed > limit else ""
    unmasked = real if masks else (length if read is None else max(read, real))
    return Reading(
        language.place.id,
        tuple(shown),
        limit,
        needed,
        cut,
        padding=max(0, unmasked - real),
        masked=max(0, length - unmasked),
    )


def _spans(language: Language, prompt: str, length: int) -> list[tuple[int, int]]:
    """First and last + 1 character of each token; none where the tokenizer cannot say."""
    if not getattr(language.tokenizer, "is_fast", False):
        return []
    return language.spans([prompt], length)[0]
