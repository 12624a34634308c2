"""What a language model is asked for: of which layers, and after which text before the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.languages.base import Language
from lavi_bridge.languages.layers import read_layers
from lavi_bridge.languages.loading.tokenizer import load_tokenizer
from lavi_bridge.languages.reading import LAST
from lavi_bridge.languages.template import Template, template_of


@dataclass(frozen=True)
class Asked:
    """What is asked for, by the names that people give it."""

    layers: str | int = LAST
    """Which are read; see `reading`."""
    template: str | None = None
    """What stands before every prompt: a text, or `chat`."""

    def of(self, language: Language, *, trust_remote_code: bool = False) -> None:
        """Ask a language model for it; an outline gets the tokenizer that a template needs.

        Raises:
            BridgeError: the model has no such layers, or the template cannot be used.
        """
        read_layers(language, self.layers)
        if self.template is None:
            return
        if language.tokenizer is None:
            place = language.place
            language.tokenizer = load_tokenizer(place, trust_remote_code=trust_remote_code)
        _put_before(language, template_of(language.tokenizer, self.template, language.place.id))


def record(language: Language) -> dict[str, Any]:
    """What a language model is asked for, to be kept; empty for the last states of the prompt."""
    kept: dict[str, Any] = {}
    if language.reading is not None:
        kept["layers"] = language.reading.name
    if language.template is not None:
        kept["template"] = language.template.record()
    return kept


def ask_again(language: Language, kept: dict[str, Any]) -> None:
    """Ask a language model for what `record` has kept, among other things.

    Raises:
        BridgeError: it is damaged, or does not fit the model.
    """
    read_layers(language, kept.get("layers", LAST))
    match kept.get("template"):
        case None:
            pass
        case {"text": str(text), "chat": bool(chat)}:
            model = language.place.id
            _put_before(language, Template(language.tokenizer, text, chat=chat, model=model))
        case other:
            raise BridgeError(f"a template is a text and whether it is a chat's, not {other!r}")


def _put_before(language: Language, template: Template) -> None:
    """Let a template stand before every prompt.

    Raises:
        BridgeError: it leaves no room for one.
    """
    language.template = template
    if language.room is not None and language.room < 1:
        raise BridgeError(
            f"the template has {len(template)} tokens, and '{language.place.id}' reads "
            f"{language.max_tokens} at most: none is left for a prompt"
        )
