"""What must hold in the first steps of any run, looked at before hours are spent."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from lavi_bridge.blocks import local, whole
from lavi_bridge.bridge import Bridge
from lavi_bridge.errors import BridgeError

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
        for name, parameter in list(self.waiting.items()):
            if parameter.grad is not None and bool(whole(parameter.grad).any()):
                del self.waiting[name]

    def passed(self, rate: float) -> bool:
        """Whether all is well, after a step at this rate.

        Raises:
            BridgeError: a parameter has had no gradient, or a frozen weight has changed.
        """
        for name, (parameter, before) in self.frozen.items():
            if not torch.equal(_some(parameter), before):
                raise BridgeError(f"the frozen weight '{name}' has changed in training")
        self.moved += rate > 0
        if self.waiting and self.moved >= PATIENCE:
            raise BridgeError(
                f"{len(self.waiting)} trained parameters, such as '{next(iter(self.waiting))}', "
                f"have had no gradient in {self.moved} steps"
            )
        return not self.waiting


def _some(parameter: Tensor) -> Tensor:
    """A copy of its first values on this process."""
    return local(parameter.detach()).flatten()[:SAMPLE].clone()
