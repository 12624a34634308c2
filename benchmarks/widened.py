"""What does bfloat16 cost on a CPU that has none? `python benchmarks/widened.py`

Forward and backward of one layer of SDXL's U-Net of each kind, as PyTorch computes it and widened
to float32, in turns on one thread; medians of five. Where the processor has bfloat16 of its own,
nothing is widened and the ratio says nothing.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from lavi_bridge.running.widened import needs_widening, widen

ROUNDS = 5


def layer(kind: str) -> nn.Module:
    """A frozen layer in bfloat16; small, as PyTorch's own way is slow."""
    made = nn.Linear(640, 640) if kind == "linear" else nn.Conv2d(320, 320, 3, padding=1)
    return nn.Sequential(made).bfloat16().requires_grad_(False)


def seconds(model: nn.Module, x: torch.Tensor) -> float:
    begun = time.perf_counter()
    model(x).sum().backward()
    return time.perf_counter() - begun


def main() -> None:
    torch.set_num_threads(1)
    print(f"widened here: {needs_widening()}")
    for kind, shape in (("linear", (256, 640)), ("convolution", (1, 320, 16, 16))):
        plain, wide = layer(kind), layer(kind)
        widen(wide)
        x = torch.randn(shape).bfloat16().requires_grad_()
        times: dict[str, list[float]] = {"plain": [], "wide": []}
        for _ in range(ROUNDS + 1):
            times["plain"].append(seconds(plain, x))
            times["wide"].append(seconds(wide, x))
        of = {name: statistics.median(found[1:]) for name, found in times.items()}
        print(
            f"{kind} {shape}: {of['plain'] * 1e3:.0f} ms in bfloat16, {of['wide'] * 1e3:.1f} ms "
            f"widened: {of['plain'] / of['wide']:.0f} times as fast"
        )


if __name__ == "__main__":
    main()
