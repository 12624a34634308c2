"""What must hold in the first steps of any run, looked at before hours are spent."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.errors import BridgeError
from lavi_bridge.running.blocks import local, whole

PATIENCE = 5
"""Steps that move the weights within which every trained parameter must have had a gradient. Two
are enough (LoRA's first factor has none while the second is zero), unless pictures are bad."""
SAMPLE = 64
"""Values of each frozen tensor that are compared."""


class Guards:
    """Every trained parameter gets a gradient, and no frozen weight changes."""

    def __init__(self, bridge: Bridge, *, but: Collection[str] = ()) -> None:
        """Watch all parts but those named, whose rate is zero."""
        watched = {id(p) for name, part in bridge.parts().items() if name not in but for p in part}
        self.waiting = {n: p for n, p in bridge.named_parameters() if id(p) in watched}
        self.frozen = {
            n: (p, _some(p)) for n, p in bridge.named_parameters() if not p.requires_grad
        }
        self.moved = 0

    def after_backward(self) -> None:
        """Note whose gradient is there and not zero."""
        given = {n: p.grad for n, p in self.waiting.items() if p.grad is not None}
        for name, any_ in zip(given, _told([whole(g).any() for g in given.values()]), strict=True):
            if any_:
                del self.waiting[name]

    def passed(self, rate: float) -> bool:
        """Whether all is well, after a step at this rate.

        Raises:
            BridgeError: a parameter has had no gradient, or a frozen weight has changed.
        """
        same = _told([(_some(p) == before).all() for p, before in self.frozen.values()])
        for name, unchanged in zip(self.frozen, same, strict=True):
            if not unchanged:
                raise BridgeError(f"the frozen weight '{name}' has changed in training")
        self.moved += rate > 0
        if self.waiting and self.moved >= PATIENCE:
            raise BridgeError(
                f"{len(self.waiting)} trained parameters, such as '{next(iter(self.waiting))}', "
                f"have had no gradient in {self.moved} steps"
            )
        return not self.waiting


def _told(flags: list[Tensor]) -> list[bool]:
    """What flags say, after one wait for the device, not one for each."""
    return torch.stack(flags).tolist() if flags else []


def _some(parameter: Tensor) -> Tensor:
    """A copy of its first values on this process."""
    return local(parameter.detach()).flatten()[:SAMPLE].clone()
