"""What a run tells of itself: `metrics.jsonl`, its tracker, and the figures of the latest steps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from lavi_bridge.errors import Diverged
from lavi_bridge.files.atomic import write_text
from lavi_bridge.train.checkpoints import latest


class Record:
    """`metrics.jsonl`, a JSON object a line, and the tracker; only the first process writes."""

    def __init__(self, accelerator: Accelerator, out: Path) -> None:
        self._accelerator, self._path = accelerator, out / "metrics.jsonl"

    def add(self, **values: Any) -> None:
        """Note figures; those with a `step` go to the tracker, too."""
        if not self._accelerator.is_main_process:
            return
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(values) + "\n")
        if (step := values.pop("step", None)) is not None:
            self._accelerator.log(values, step=step)

    def forget(self, key: str, *, after: int) -> None:
        """Drop the lines whose `key` is past `after`: their steps are about to be made again."""
        if self._accelerator.is_main_process and self._path.exists():
            kept = [
                line
                for line in self._path.read_text(encoding="utf-8").splitlines()
                if (values := _parsed(line)) is not None and values.get(key, after) <= after
            ]
            write_text(self._path, "".join(line + "\n" for line in kept))


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

    def check(self, norm: Tensor, step: int, out: Path) -> None:
        """Refuse to go on, and above all to save, where the loss or a gradient is no number.

        Raises:
            Diverged: it is not; the line names the last checkpoint in `out`.
        """
        finite = self.total is None or bool(torch.isfinite(self.total))
        if finite and bool(torch.isfinite(torch.as_tensor(norm))):
            return
        last = latest(out)
        good = f"the last good checkpoint is '{last}'" if last else "nothing was saved before"
        raise Diverged(
            f"the loss or its gradient is not a number in the steps up to {step}; {good}; lower "
            "the learning rates, or train in float32"
        )

    def mean(self) -> Tensor:
        assert self.total is not None
        return self.total / self.parts

    def images_per_second(self) -> float:
        return self.parts * self.images / (time.perf_counter() - self.began)


def _parsed(line: str) -> dict[str, Any] | None:
    """A line of metrics, or None for one that was cut off when the process was killed."""
    try:
        values: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return values
