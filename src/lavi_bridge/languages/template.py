"""An instruction before every prompt, which the language model reads and does not hand on.

Language models that were taught to follow instructions give other states after one, as Lumina 2 and
Qwen-Image use it. Counted are a prompt's own tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.show.output import whole

CHAT = "chat"
"""The tokenizer's own chat template, up to where the prompt begins."""
MARK = "a prompt stands here"


class Template:
    """A text before every prompt, and the tokens that it always begins with.

    Args:
        chat: whether the text brings the start token itself, so that no marks are added.

    Raises:
        BridgeError: the tokenizer gives no character offsets, or the text has no token.
    """

    def __init__(self, tokenizer: Any, text: str, *, chat: bool, model: str) -> None:
        self._tokenizer, self.text, self.chat = tokenizer, whole(text), chat
        self.ids: list[int] = []
        if not tokenizer.is_fast:
            raise BridgeError(
                f"the tokenizer of '{model}' gives no character offsets, which a template needs"
            )
        ids, spans = self._encoded(["a"])[0]
        self.ids = ids[: self._start(spans)]
        if not self._start(spans):
            raise BridgeError(f"a template needs text of which '{model}' makes tokens: {text!r}")

    def __len__(self) -> int:
        """Tokens before the prompt."""
        return len(self.ids)

    def record(self) -> dict[str, Any]:
        """What a bridge keeps of it: the text itself, as a chat template may change."""
        return {"text": self.text, "chat": self.chat}

    def own(
        self, prompts: Sequence[str], length: int | None = None
    ) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """For each prompt its own tokens, at most `length`, and the characters that each covers.

        They are cut behind the template, so they are what they are there: a word after a blank,
        say, and not one at the beginning.
        """
        rows = []
        for ids, spans in self._encoded(prompts, length):
            start, shift = self._start(spans), len(self.text)
            moved = [(max(0, a - shift), max(0, b - shift)) for a, b in spans[start:]]
            rows.append((ids[start:][:length], moved[:length]))
        return rows

    def padded(self, prompts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """The prompts' own ids (batch, length), padded on the right, and their mask."""
        ids = torch.full((len(prompts), length), self._tokenizer.pad_token_id)
        mask = torch.zeros(len(prompts), length, dtype=torch.long)
        for row, (found, _) in enumerate(self.own(prompts, length)):
            ids[row, : len(found)] = torch.tensor(found, dtype=torch.long)
            mask[row, : len(found)] = 1
        return ids, mask

    def before(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Put its tokens before those of prompts (batch, tokens), and mark them as read."""
        first = torch.tensor(self.ids, device=ids.device).expand(len(ids), -1)
        return torch.cat([first, ids], 1), None if mask is None else self.widened(mask)

    def widened(self, mask: Tensor) -> Tensor:
        """A mask (batch, tokens) with ones for its own tokens before."""
        return torch.nn.functional.pad(mask, (len(self), 0), value=1)

    def _encoded(self, prompts: Sequence[str], length: int | None = None) -> list[tuple[Any, Any]]:
        if not prompts:
            return []
        cut = {} if length is None else {"truncation": True, "max_length": len(self) + length}
        encoded = self._tokenizer(
            [self.text + whole(prompt) for prompt in prompts],
            add_special_tokens=not self.chat,
            return_offsets_mapping=True,
            verbose=False,
            **cut,
        )
        return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))

    def _start(self, spans: Sequence[tuple[int, int]]) -> int:
        """Where a prompt's tokens begin: after the last one that ends within the template."""
        inside = [i for i, (_, stop) in enumerate(spans) if 0 < stop <= len(self.text)]
        return inside[-1] + 1 if inside else 0


def template_of(tokenizer: Any, template: str, model: str) -> Template:
    """A template by name (`chat`), or of the text itself.

    Raises:
        BridgeError: there is no chat template, or it cannot be used; see also `Template`.
    """
    if template != CHAT:
        return Template(tokenizer, template, chat=False, model=model)
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise BridgeError(
            f"the tokenizer of '{model}' has no chat template: give the text before the prompt"
        )
    try:
        told = [{"role": "user", "content": MARK}]
        text = str(tokenizer.apply_chat_template(told, tokenize=False))
    except (TemplateError, TypeError, ValueError) as error:
        raise BridgeError(
            f"the chat template of '{model}' takes no plain prompt ({first_line(error)}): give "
            "the text before the prompt"
        ) from error
    if MARK not in text:
        raise BridgeError(f"the chat template of '{model}' leaves the prompt out")
    return Template(tokenizer, text.partition(MARK)[0], chat=True, model=model)
