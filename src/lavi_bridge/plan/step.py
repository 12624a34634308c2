"""One training step on shapes alone: what autograd keeps of it, and its arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.own import own_length
from lavi_bridge.errors import BridgeError
from lavi_bridge.text import Text


@dataclass(frozen=True)
class StepCount:
    """What a training step needs, besides weights."""

    kept_gb: float = 0.0
    """What autograd keeps for the backward pass."""
    checkpointed_gb: float | None = None
    """The same with gradient checkpointing; None where that was not counted, or cannot be."""
    forward_tflop: float = 0.0
    """TFLOP of an image in the vision model's forward pass."""
    tflop: float = 0.0
    """TFLOP of an image in all passes that were counted."""
    counted: bool = True
    """Whether the models run on shapes alone."""


def count_step(
    bridge: Bridge,
    batch: int,
    shape: tuple[int, int, int],
    *,
    backward: bool,
    checkpointing: bool,
) -> StepCount:
    """Count a step of an outline, which becomes one of fake tensors on the way.

    Args:
        backward: the arithmetic of the backward pass, too.
        checkpointing: also what is kept with gradient checkpointing, by a second forward pass.
    """
    # shapes that pass for real CPU tensors, so that attention takes its fused path as on a GPU
    with FakeTensorMode(allow_non_fake_inputs=True):
        bridge.to_empty(device="cpu").train()
        try:
            kept, forward, flop = _run(bridge, batch, shape, backward=backward)
        except (DataDependentOutputException, DynamicOutputShapeException):  # Lumina2, Z-Image
            return StepCount(counted=False)
        less = _checkpointed(bridge, batch, shape) if checkpointing else None
    return StepCount(kept / 1e9, less, forward / batch / 1e12, flop / batch / 1e12)


def _run(
    bridge: Bridge, batch: int, shape: tuple[int, int, int], *, backward: bool
) -> tuple[int, int, int]:
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    attention_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    counter = FlopCounterMode(
        display=False,
        custom_mapping={attention: _attended, attention_backward: _attended_backward},
    )
    kept = _Kept(bridge)
    with counter, kept.counting():
        loss, forward = _loss(bridge, batch, shape, counter.get_total_flops)
        if backward:
            loss.backward()
    return kept.bytes, forward, counter.get_total_flops()


def _loss(
    bridge: Bridge, batch: int, shape: tuple[int, int, int], done: Callable[[], int]
) -> tuple[Tensor, int]:
    ids = torch.zeros(batch, bridge.tokens, dtype=torch.long)
    mask = torch.ones_like(ids) if bridge.vision.masks else None
    features = Text(bridge.language.hidden(ids), mask, own=_own(bridge, batch))
    text = bridge.adapt(features)
    before = done()
    loss = bridge.predict(torch.zeros(batch, *shape), torch.zeros(batch), text).sum()
    return loss, done() - before


def _own(bridge: Bridge, batch: int) -> Text | None:
    """What the own encoder would give, where the adapter reads it: in its shapes."""
    own, vision = bridge.own_encoders, bridge.vision
    if own is None:
        return None
    length = own_length(own, vision)
    mask = torch.ones(batch, length, dtype=torch.long) if vision.masks else None
    pooled = torch.zeros(batch, vision.pooled_width) if vision.pooled_width else None
    return Text(torch.zeros(batch, length, vision.text_width), mask, pooled)


def _checkpointed(bridge: Bridge, batch: int, shape: tuple[int, int, int]) -> float | None:
    """GB that are kept with gradient checkpointing: what is outside of the blocks that are computed
    twice, what enters them, and the inside of the largest, which is there while it is computed."""
    try:
        bridge.checkpoint_activations()
    except BridgeError:  # Chroma
        return None
    outside, largest = _Kept(bridge), 0

    def run(block: Any, *inputs: Any, **options: Any) -> Any:
        nonlocal largest
        for tensor in (*inputs, *options.values()):
            if isinstance(tensor, Tensor):
                outside.keep(tensor)
        inside = _Kept(bridge)
        with inside.counting():
            answer = block(*inputs, **options)
        largest = max(largest, inside.bytes)
        return answer

    for module in bridge.modules():
        if hasattr(module, "_gradient_checkpointing_func"):
            module._gradient_checkpointing_func = run  # type: ignore[assignment]
    with outside.counting():
        _loss(bridge, batch, shape, lambda: 0)
    return (outside.bytes + largest) / 1e9


class _Kept:
    """Bytes that autograd keeps, each storage once; parameters are counted elsewhere."""

    def __init__(self, bridge: Bridge) -> None:
        self.bytes = 0
        self._seen = {
            p.untyped_storage()._cdata: p for p in [*bridge.parameters(), *bridge.buffers()]
        }

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = tensor
            self.bytes += storage.nbytes()
        return tensor

    @contextmanager
    def counting(self) -> Iterator[None]:
        with saved_tensors_hooks(self.keep, lambda tensor: tensor):
            yield


def _attended(query: Sequence[int], key: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOP of attention, which torch counts on GPUs alone; shapes (batch, heads, tokens, width)."""
    batch, heads, tokens, width = query
    return 4 * batch * heads * tokens * key[2] * width


def _attended_backward(
    _gradient: Any, query: Sequence[int], key: Sequence[int], *_: Any, **__: Any
) -> int:
    """As torch counts it on GPUs: five products instead of two, the scores being made again."""
    return _attended(query, key) * 5 // 2
