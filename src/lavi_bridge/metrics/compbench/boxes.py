"""What a detector finds, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Box:
    """An object found in an image; its edges are in pixels from the left and from the top."""

    label: str
    confidence: float
    """In [0, 1]."""
    left: float
    top: float
    right: float
    bottom: float

    @property
    def x(self) -> float:
        """The middle, in pixels from the left."""
        return (self.left + self.right) / 2

    @property
    def y(self) -> float:
        """The middle, in pixels from the top."""
        return (self.top + self.bottom) / 2

    def scaled(self, across: float, down: float) -> Box:
        """The same object after the image was resized by these factors."""
        return replace(
            self,
            left=self.left * across,
            right=self.right * across,
            top=self.top * down,
            bottom=self.bottom * down,
        )


def overlap(a: Box, b: Box, *, edge: float = 0) -> tuple[float, float, float]:
    """The areas of two boxes' intersection, of the first and of the second, in pixels squared.

    Args:
        edge: 1 where right and bottom edges name the last pixel inside.
    """
    width = max(0, min(a.right, b.right) - max(a.left, b.left) + edge)
    height = max(0, min(a.bottom, b.bottom) - max(a.top, b.top) + edge)
    first, second = (
        (box.right - box.left + edge) * (box.bottom - box.top + edge) for box in (a, b)
    )
    return width * height, first, second


def iou(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1]; 0 for boxes without area."""
    both, first, second = overlap(a, b)
    union = first + second - both
    return both / union if union else 0.0


def distinct(boxes: Iterable[Box], same: Callable[[Box, Box], bool]) -> list[Box]:
    """Leave out every box that is the same as an earlier one of its label."""
    kept: list[Box] = []
    for box in boxes:
        if not any(box.label == other.label and same(box, other) for other in kept):
            kept.append(box)
    return kept
