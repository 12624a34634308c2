"""What a `.safetensors` file says of its tensors before any is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lavi_bridge.errors import BridgeError, first_line

Shapes = Mapping[str, tuple[int, ...]]
"""Names of tensors, without what all of a part have in front, and their shapes."""


@dataclass(frozen=True)
class Checkpoint:
    """Names, shapes and notes of a file's tensors."""

    path: Path
    shapes: Shapes
    notes: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read them.

        Raises:
            BridgeError: it is no safetensors file, or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                names: list[str] = file.keys()
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
                return cls(path, shapes, file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise BridgeError(
                f"'{path}' is no safetensors file, or damaged: {first_line(error)}"
            ) from error

    def part(self, prefix: str) -> Shapes:
        """The tensors whose names begin so, by the rest of their names."""
        return {
            name.removeprefix(prefix): shape
            for name, shape in self.shapes.items()
            if name.startswith(prefix)
        }

    def tensors(self, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read them, by their whole names."""
        with safe_open(self.path, framework="pt") as file:
            return {
                name: file.get_tensor(name).to(dtype)
                for name in self.shapes
                if name.startswith(prefix)
            }


def count(shapes: Shapes, pattern: str) -> int:
    """How many there are of what is numbered from 0: `count(shapes, "double_blocks.{}.")`."""
    number = 0
    while any(name.startswith(pattern.format(number)) for name in shapes):
        number += 1
    return number
