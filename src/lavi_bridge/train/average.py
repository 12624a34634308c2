"""The weights that a run is judged and saved by: an average over its steps, where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn


class Average:
    """An exponential moving average, the one that schedule-free keeps by itself, or none.

    Args:
        decay: of the moving average; 0 for none.
        schedule_free: the optimizer, where it is of that kind.
        spread: whether processes hold parts of the weights.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        decay: float,
        schedule_free: torch.optim.Optimizer | None,
        spread: bool,
    ) -> None:
        self._parameters, self._schedule_free = parameters, schedule_free
        # a few kernels for all weights; torch has none for those that are spread
        self._ema = EMAModel(parameters, decay=decay, foreach=not spread) if decay else None

    @property
    def shadows(self) -> list[Tensor]:
        """The averaged weights, live, in the order of the parameters; [] where there are none."""
        return self._ema.shadow_params if self._ema else []

    @property
    def steps(self) -> int:
        """Steps that are in the average; its decay rises with them."""
        return int(self._ema.optimization_step) if self._ema else 0

    @steps.setter
    def steps(self, count: int) -> None:
        if self._ema:
            self._ema.optimization_step = count

    def begin(self) -> None:
        """Start from the weights as they are, which may have changed since this was made."""
        if self._ema:
            _copy(self._parameters, self.shadows)

    def add(self) -> None:
        """Take the weights after a step into the average."""
        if self._ema:
            self._ema.step(self._parameters)

    def take(self) -> None:
        """Put the averaged weights in the place of the others, for good."""
        if self._ema:
            self._ema.copy_to(self._parameters)
        if self._schedule_free:
            self._schedule_free.eval()  # type: ignore[attr-defined]

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, the parameters have the averaged weights."""
        if not self._ema and not self._schedule_free:
            yield
            return
        kept = [parameter.detach().clone() for parameter in self._parameters]
        self.take()
        try:
            yield
        finally:
            if self._schedule_free:
                self._schedule_free.train()  # type: ignore[attr-defined]
            _copy(kept, self._parameters)  # the very same bits, which going back would not give


def _copy(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor, fresh in zip(into, values, strict=True):
            tensor.copy_(fresh)
