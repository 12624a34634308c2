"""Questions as a judge reads them: what stands for a picture, what follows it, and answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

import torch
from torch import Tensor

Tokens = tuple[int, ...]
GIVEN = "input_ids", "attention_mask"


@dataclass(frozen=True)
class Row:
    """A question about a picture, with one answer of several tokens or none."""

    number: int
    """Of the question, in the order in which they were asked."""
    ids: Tokens
    """The prompt's tokens."""
    answer: Tokens
    """The answer's tokens but the last."""
    of_token: dict[str, Tensor] = field(default_factory=dict)
    """Inputs with a place for each token, of a question that is read whole."""


@dataclass(frozen=True)
class Seen:
    """A picture as the model reads it."""

    inputs: dict[str, Tensor]
    """What the processor made of it and its first question."""
    rows: list[Row]
    prefix: Tokens
    """The tokens of all its questions up to the last that stands for the picture."""

    @property
    def of_token(self) -> dict[str, Tensor]:
        """Those of them with a place for each token, beside the tokens."""
        return by_token(self.inputs)

    @property
    def of_picture(self) -> dict[str, Tensor]:
        """The other inputs."""
        known = {*self.of_token, *GIVEN}
        return {key: value for key, value in self.inputs.items() if key not in known}

    @property
    def alike(self) -> object:
        """Pictures of which this is equal can be read at once."""
        facts: list[object] = [self.prefix]
        for key, value in sorted(self.of_picture.items()):
            facts += [key, value.shape if value.is_floating_point() else str(value.tolist())]
        return tuple(facts)


def by_token(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inputs with a place for each token, beside the tokens."""
    shape = inputs["input_ids"].shape
    return {k: v for k, v in inputs.items() if v.shape == shape and k not in GIVEN}


def parted(ids: Tokens, config: Any) -> tuple[Tokens, Tokens]:
    """A prompt's tokens up to the last that stands for the picture, and the others.

    Args:
        config: the model's; where it names no such token, all are the others.
    """
    end = max((place for place, token in enumerate(ids, 1) if token in _stand(config)), default=0)
    return ids[:end], ids[end:]


def leading(ids: Tokens, config: Any) -> Tokens:
    """A prompt's tokens before the first that stands for the picture."""
    stand = _stand(config)
    return tuple(takewhile(lambda token: token not in stand, ids))


def _stand(config: Any) -> set[int | None]:
    """Tokens that stand for a picture."""
    return {getattr(config, key, None) for key in ("image_token_id", "image_token_index")}


def extended(values: Tensor, length: int) -> Tensor:
    """Values by token (1, n), gone on with zeros to a length."""
    return torch.nn.functional.pad(values, (0, length - values.shape[1]))


def noted(
    logits: Tensor,
    rows: Sequence[Row],
    start: int,
    wanted: Sequence[Sequence[Tokens]],
    found: Sequence[dict[Tokens, float]],
) -> None:
    """Multiply the probabilities of the answers' tokens.

    Args:
        logits: of rows (rows, tokens, vocabulary), from the token number `start` of their prompts.
    """
    for place, row in enumerate(rows):
        last = len(row.ids) - 1 - start
        chances = logits[place, last : last + len(row.answer) + 1].float().softmax(-1)
        mine = [t for t in wanted[row.number] if row.answer[: len(t) - 1] == t[:-1]]
        steps = [step for tokens in mine for step in range(len(tokens))]
        picked = iter(chances[steps, [token for tokens in mine for token in tokens]].tolist())
        for tokens in mine:
            found[row.number][tokens] = math.prod(islice(picked, len(tokens)))
