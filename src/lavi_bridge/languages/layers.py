"""LoRA in the last layers of a language model alone: what lies below is computed once.

A large model becomes affordable so: the states that enter the first layer that trains are the same
in every step, and its gradient ends there.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.languages.base import Language
from lavi_bridge.languages.calm import without_dropout
from lavi_bridge.languages.reading import LAST
from lavi_bridge.languages.reading import reading as parsed

HALF = 2.0**15
"""States below this are kept in float16, whose largest number is twice as much."""
ALL = "all"
"""LoRA in every layer; `last:K` means the last K alone."""


def stack_of(language: Language) -> tuple[str, nn.ModuleList]:
    """The layers of a language model with their dotted name: the longest list of equal modules.

    Raises:
        BridgeError: the model has none.
    """
    stacks = _stacks(language)
    if not stacks:
        raise BridgeError(f"'{language.place.id}' has no stack of layers to choose from")
    return max(stacks, key=lambda stack: len(stack[1]))


def _stacks(language: Language) -> list[tuple[str, nn.ModuleList]]:
    return [
        (name, module)
        for name, module in language.model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1
    ]


def lora_targets(language: Language, layers: str = ALL) -> str:
    """The regular expression for what gets LoRA, in all layers or in the last K (`last:K`).

    Layers above those that are read get none, as they would have no gradient; empty where no layer
    is read.

    Raises:
        BridgeError: it is neither, or there are fewer layers.
    """
    top = _top(language)
    if layers == ALL:
        return language.lora_targets if top is None else _within(language, 0, top)
    kind, _, count = layers.partition(":")
    if kind != "last" or not count.isdecimal() or int(count) < 1:
        raise BridgeError(f"language layers are '{ALL}' or 'last:K', not '{layers}'")
    has = "has" if top is None else "is read after"
    top = len(stack_of(language)[1]) if top is None else top
    if int(count) > top:
        raise BridgeError(f"'{language.place.id}' {has} {top} layers, fewer than '{layers}'")
    return _within(language, top - int(count), top)


def _within(language: Language, first: int, end: int) -> str:
    """The pattern of LoRA's targets in some layers; empty for none."""
    name, numbers = stack_of(language)[0], "|".join(map(str, range(first, end)))
    return rf"(?={re.escape(name)}\.({numbers})\.)({language.lora_targets})" if numbers else ""


def read_layers(language: Language, layers: str | int) -> None:
    """Choose which layers are read (see `reading`); what lies far above them is let go.

    One layer more is kept, as the last states that a model gives are after its final norm.

    Raises:
        BridgeError: there are no such layers.
    """
    count = getattr(language.config, "num_hidden_layers", None)
    if count is None and str(layers) != LAST:
        raise BridgeError(f"'{language.place.id}' does not say how many layers it has")
    language.reading = reading = parsed(layers, int(count or 0), language.place.id)
    if reading is not None and language.shortens and _one_a_layer(language):
        _, stack = stack_of(language)
        language.let_go = sum(p.numel() for p in stack[reading.top + 1 :].parameters())
        del stack[reading.top + 1 :]


def _top(language: Language) -> int | None:
    """How many of the first layers have a say in what is read; None for all of them."""
    reading = language.reading
    if reading is None or reading.top == reading.count or not _one_a_layer(language):
        return None
    return reading.top


def _one_a_layer(language: Language) -> bool:
    """Whether the stack has an entry for each layer that is counted, as far as it is kept."""
    reading = language.reading
    length = max((len(stack) for _, stack in _stacks(language)), default=0)
    return reading is not None and length in (reading.count, reading.top + 1)


def frozen_layers(language: Language) -> int:
    """How many of the first layers come before all that trains; 0 where none of them trains."""
    if language.lora is None or not _stacks(language):
        return 0
    if language.reading is not None and len(language.reading.places) > 1:
        return 0  # what lies below is read, too
    name, _ = stack_of(language)
    trained = [n for n, p in language.model.named_parameters() if p.requires_grad]
    inside = [n.removeprefix(f"{name}.") for n in trained if n.startswith(f"{name}.")]
    if len(inside) < len(trained):
        return 0
    return min((int(n.partition(".")[0]) for n in inside), default=0)


class Upper:
    """A language model from its first layer that trains on, and what comes before it apart.

    Args:
        language: one whose first layers are frozen.
    """

    def __init__(self, language: Language) -> None:
        self.language, self.frozen = language, frozen_layers(language)
        self._stack = stack_of(language)[1]
        self._check()

    @torch.no_grad()
    def _check(self) -> None:
        """Refuse a model whose layers do not simply follow one another.

        Raises:
            BridgeError: from the states below, another answer comes.
        """
        language, training = self.language, self.language.training
        language.eval()
        ids = language.tokenize(["a few words to try"], 4).ids
        try:
            whole = language.hidden(ids).float()
            apart = self.above(self.below(ids), ids).float()
        finally:
            language.train(training)
        if not (apart - whole).norm() <= 0.05 * whole.norm():
            raise BridgeError(
                f"the layers of '{language.place.id}' do not simply follow one another, so what "
                "lies below the last ones cannot be computed apart: train all of them"
            )

    @torch.no_grad()
    def below(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The states (batch, tokens, width) that enter the first layer that trains.

        Those of a template's tokens come first: the layers above read them.

        They are to be kept, so they are in 16 bits where float16 holds them.
        """
        found: list[Tensor] = []

        def take(_layer: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> None:
            found.append(inputs[0] if inputs else options["hidden_states"])
            raise _Reached

        hook = self._stack[self.frozen].register_forward_pre_hook(take, with_kwargs=True)
        try:
            with suppress(_Reached), without_dropout(self.language.model):
                self.language.hidden(input_ids, attention_mask)
        finally:
            hook.remove()
        return _halved(found[0])

    def above(
        self, states: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """The last hidden states, from what `below` gave for the same tokens.

        The first layer still runs, as T5's gives the others their biases; what it answers is
        replaced.
        """
        states = states.to(self.language.dtype)
        first, *others = self._stack[: self.frozen]
        run = first.forward
        extras: list[tuple[Any, ...]] = []

        def given(*args: Any, **options: Any) -> Any:
            with torch.no_grad():
                answer = run(*args, **options)
            if not isinstance(answer, tuple):
                return states
            extras.append(answer[1:])
            return (states, *extras[0])

        def passed_on(hidden_states: Tensor, *_args: Any, **_options: Any) -> Any:
            return (hidden_states, *extras[0]) if extras else hidden_states

        for layer in self._stack[: self.frozen]:
            layer.forward = given if layer is first else passed_on
        try:
            return self.language.hidden(input_ids, attention_mask)
        finally:
            for layer in (first, *others):
                vars(layer).pop("forward", None)


class Whole:
    """A language model of which nothing trains: what it hands on is computed once.

    Args:
        language: one without LoRA.
    """

    def __init__(self, language: Language) -> None:
        self.language = language

    @torch.no_grad()
    def below(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What is handed on (batch, tokens, handed width); in 16 bits where float16 holds it."""
        with without_dropout(self.language.model):
            return _halved(self.language.hidden(input_ids, attention_mask))

    def above(
        self, states: Tensor, _input_ids: Tensor, _attention_mask: Tensor | None = None
    ) -> Tensor:
        """The same, in the model's precision."""
        return states.to(self.language.dtype)


def kept_part(language: Language) -> Upper | Whole | None:
    """What computes once, and keeps, as much of a language model as never changes in a training.

    None where all of its layers train, or what lies below those that do is read, too.
    """
    if language.lora is None and not any(p.requires_grad for p in language.model.parameters()):
        return Whole(language)
    return Upper(language) if frozen_layers(language) else None


def _halved(states: Tensor) -> Tensor:
    """States that are to be kept: float32 in 16 bits, where float16 holds them."""
    if states.dtype != torch.float32:
        return states
    return states.half() if float(states.abs().max()) < HALF else states


class _Reached(Exception):
    """The layer is reached whose input was asked for."""
