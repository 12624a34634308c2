"""Ways to run a language model for a while: without its own dropout, with a faster GELU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "dropout_rate")
"""Attributes by which modules of transformers hold the share that attention drops."""


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Inside, the model's own dropout is off, whatever its mode; that of LoRA is not."""
    kept = []
    for module in model.modules():
        names = ("p",) if isinstance(module, nn.Dropout) else DROPOUTS
        found = {n: v for n in names if isinstance(v := vars(module).get(n), float)}
        kept += [(module, name, value) for name, value in found.items()]
        for name in found:
            setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


@contextmanager
def whole_gelu(model: nn.Module) -> Iterator[None]:
    """Inside, GELU by its tanh is one operation and not eight: the same but for rounding."""
    from transformers.activations import NewGELUActivation

    found = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if type(child) is NewGELUActivation
    ]
    for module, name, _ in found:
        setattr(module, name, nn.GELU(approximate="tanh"))
    try:
        yield
    finally:
        for module, name, child in found:
            setattr(module, name, child)
