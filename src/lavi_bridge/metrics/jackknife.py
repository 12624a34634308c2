"""How sure a distance between two sets of images is: the jackknife, which leaves out in turn.

A bootstrap draws images twice, and to a distance doubles look like a set with less variety: its
values lie above the distance itself. Leaving out adds nothing that was not drawn. Source: Efron and
Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import torch
from torch import Tensor

GROUPS = 20
"""Groups of prompts that are left out in turn."""
ROWS = 2048
"""Rows and columns of a kernel that are in memory at once."""

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows (n, width), (m, width) -> values (n, m)."""


def groups_of(counts: Sequence[int]) -> Tensor | None:
    """Images per prompt -> the group of every image; None where fewer than 3 prompts have some.

    A prompt's images stay together, as they resemble each other. Neighbours go to different groups,
    so that each has a share of every category.
    """
    counts = [images for images in counts if images]  # a group without images leaves nothing out
    number = min(GROUPS, len(counts))
    if number < 3:
        return None
    return torch.tensor([n % number for n, images in enumerate(counts) for _ in range(images)])


def spread(left_out: Sequence[float] | Tensor) -> float:
    """The values without each of G groups -> the standard error of the value with all.

    √((G - 1) / G · Σ (value - mean)²).
    """
    values = torch.as_tensor(left_out, dtype=torch.float64)
    return sqrt((len(values) - 1) * values.var(correction=0).item())


def kernel_sums(
    kernel: Kernel,
    first: Tensor,
    second: Tensor,
    groups: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    """Sums (G, H) of a kernel over the pairs of a group of `first` and one of `second`, in float64.

    The matrix is made in blocks of 2,048 rows and columns, and of one set with itself (`first is
    second`) only one half.

    Args:
        groups: of the rows of either, from 0; None takes all for one.
    """
    rows, columns = (_members(x, one) for x, one in zip((first, second), groups, strict=True))
    total = torch.zeros(rows.shape[1], columns.shape[1], dtype=torch.float64)
    for i in range(0, len(first), ROWS):
        start = i if first is second else 0
        for j in range(start, len(second), ROWS):
            block = kernel(first[i : i + ROWS], second[j : j + ROWS]).double()
            sums = rows[i : i + ROWS].T @ (block @ columns[j : j + ROWS])
            total += sums
            if first is second and i != j:
                total += sums.T
    return total


def _members(rows: Tensor, groups: Tensor | None) -> Tensor:
    """(N, G) in float64: 1 where a row is in a group."""
    if groups is None:
        return torch.ones(len(rows), 1, dtype=torch.float64)
    return torch.nn.functional.one_hot(groups).double()


def left_out(
    within: Tensor, between: Tensor, groups: Tensor, other: int, *, diagonal: Tensor | None = None
) -> Tensor:
    """Squared mean discrepancies without each group, but for what only the other set adds, (G,).

    Args:
        within: sums (G, G) of the kernel over pairs of our rows.
        between: sums (G, 1) over pairs with the other set's.
        other: rows of the other set.
        diagonal: sums (G,) over pairs of a row with itself, where these do not count.
    """
    sizes = torch.bincount(groups).double()
    kept = len(groups) - sizes
    inner = within.sum() - within.sum(0) - within.sum(1) + within.diagonal()
    pairs = kept**2
    if diagonal is not None:
        inner, pairs = inner - (diagonal.sum() - diagonal), pairs - kept
    outer = between.sum() - between[:, 0]
    return inner / pairs - 2 * outer / (kept * other)
