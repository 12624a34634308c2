"""Which of a language model's hidden states are handed on: the last ones, as published, or others.

There is one set of states before the first layer (the embeddings, number 0) and one after each. The
last often are after the model's final norm, the inner ones never.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError

LAST = "last"
"""The last hidden states, as published."""


@dataclass(frozen=True)
class Reading:
    """What is made of the hidden states of all layers."""

    name: str
    """As it was asked for."""
    model: str
    count: int
    """Layers of the model."""
    places: tuple[int, ...]
    """Numbers of the states that are read, rising."""
    averaged: bool = False
    """Whether their mean is handed on; otherwise they lie side by side."""

    @property
    def many(self) -> int:
        """How many states of a token are handed on side by side."""
        return 1 if self.averaged else len(self.places)

    @property
    def mixed(self) -> int:
        """How many states of a token the adapter mixes by weights that it learns; 0 for none."""
        return self.many if self.name == "mix" else 0

    @property
    def top(self) -> int:
        """Layers that what is read depends on: the first so many."""
        return self.places[-1]

    def __call__(self, states: Sequence[Tensor] | None) -> Tensor:
        """Hidden states (batch, tokens, width), embeddings first -> (batch, tokens, width × many).

        One layer is read as it is. Of several, each is normalised first (arXiv 2506.08210), as
        their sizes differ by orders of magnitude.

        Raises:
            BridgeError: the model does not give as many as it has layers.
        """
        found = len(states or ())
        if states is None or found not in (self.count + 1, self.top + 2):
            raise BridgeError(
                f"'{self.model}' gives {found} hidden states, not one for each of its {self.count} "
                f"layers and its embeddings: its last ones alone can be read (layers '{LAST}')"
            )
        if len(self.places) == 1:
            return states[self.top]
        rows = [_normalised(states[place]) for place in self.places]
        joined = torch.stack(rows).mean(0) if self.averaged else torch.cat(rows, -1)
        return joined.to(states[0].dtype)


def reading(layers: str | int, count: int, model: str) -> Reading | None:
    """What `layers` asks for of a model with `count` layers; None for its last hidden states.

    Args:
        layers: `last`, `penultimate`, a number (0 the embeddings, negative from the end), `mean`,
            `mix` or `stack:K`.

    Raises:
        BridgeError: it is none of these, or there are no such layers.
    """
    name = str(layers)
    kind, _, number = name.partition(":")
    if name == LAST:
        return None
    if name == "penultimate":
        return Reading(name, model, count, (count - 1,))
    if name in ("mean", "mix"):
        return Reading(name, model, count, tuple(range(count + 1)), averaged=name == "mean")
    if kind == "stack" and number.isdecimal() and int(number) > 0:
        many = int(number)
        if many > count:
            raise BridgeError(f"'{model}' has {count} layers, fewer than '{name}'")
        return Reading(name, model, count, tuple(i * count // many for i in range(1, many + 1)))
    if not re.fullmatch(r"-?\d+", name):
        raise BridgeError(
            f"layers are '{LAST}', 'penultimate', a number, 'mean', 'mix' or 'stack:K', "
            f"not '{name}'"
        )
    place = int(name)
    if not -count - 1 <= place <= count:
        raise BridgeError(
            f"'{model}' has {count} layers: its states are 0 to {count}, or -1 to {-count - 1}, "
            f"not {place}"
        )
    return Reading(name, model, count, (place % (count + 1),))


def _normalised(states: Tensor) -> Tensor:
    """States with mean 0 and variance 1 each, in float32."""
    return nn.functional.layer_norm(states.float(), states.shape[-1:])
