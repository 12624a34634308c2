"""Mean loss and speed of the latest steps."""

from __future__ import annotations

import time

import torch
from torch import Tensor


class Meter:
    """Mean loss and speed since the last look, without waiting for the device at every step."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.total: Tensor | None = None
        self.restart()

    def restart(self) -> None:
        """Begin anew, so that time spent on validation and saving does not count."""
        self.total, self.parts = None, 0
        self.began = time.perf_counter()

    def add(self, loss: Tensor) -> None:
        self.total = loss if self.total is None else self.total + loss
        self.parts += 1

    def finite(self) -> bool:
        return self.total is None or bool(torch.isfinite(self.total))

    def mean(self) -> Tensor:
        assert self.total is not None
        return self.total / self.parts

    def images_per_second(self) -> float:
        return self.parts * self.images / (time.perf_counter() - self.began)
