"""Products in bfloat16 on a processor that has none of its own, computed in float32.

Without AVX-512 PyTorch multiplies bfloat16 by loops that no vector unit helps, which take dozens of
times as long as float32. The weights stay in bfloat16, so memory does: those of the layer at work
are widened, and what it gives is rounded once.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear
from torch.nn.grad import conv2d_input


def needs_widening() -> bool:
    """Whether products in bfloat16 are slow here: an x86 processor without AVX-512.

    Beside a GPU, which has them, layers stay as they are.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    slow = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    return x86 and slow and not torch.cuda.is_available()


def widen(module: nn.Module) -> None:
    """Let the frozen linear layers and 2-D convolutions of a module that are in bfloat16 compute in
    float32, if that is faster here. What trains, attention and autocast go PyTorch's own way."""
    if not needs_widening():
        return
    for layer in module.modules():
        kind = KINDS.get(type(layer))
        weight = getattr(layer, "weight", None)
        if kind is not None and weight is not None and weight.dtype == torch.bfloat16:
            if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
                continue
            layer.__class__ = kind


class WideLinear(nn.Linear):
    """A linear layer whose bfloat16 products are computed in float32 on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not _slow(x, self):
            return super().forward(x)
        return _Linear.apply(x, self.weight, self.bias)


class WideConv2d(nn.Conv2d):
    """A convolution whose bfloat16 products are computed in float32 on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not _slow(x, self) or isinstance(self.padding, str):
            return super().forward(x)
        how = self.stride, self.padding, self.dilation, self.groups
        return _Convolution.apply(x, self.weight, self.bias, how)


KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: WideLinear, nn.Conv2d: WideConv2d}


class _Linear(torch.autograd.Function):
    """x W' + b; only x has a gradient, and the widened weight is not kept for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return (grad.float() @ weight.float()).to(grad.dtype), None, None


class _Convolution(torch.autograd.Function):
    """The same for a convolution; `how` is stride, padding, dilation and groups."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.how = x.shape, how
        wide = None if bias is None else bias.float()
        return conv2d(x.float(), weight.float(), wide, *how).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        found = conv2d_input(ctx.shape, weight.float(), grad.float(), *ctx.how)
        return found.to(grad.dtype), None, None, None


def _slow(x: Tensor, layer: nn.Linear | nn.Conv2d) -> bool:
    """Whether input and layer are bfloat16 on the CPU, and the layer is frozen."""
    frozen = not any(parameter.requires_grad for parameter in layer.parameters())
    return frozen and x.dtype == layer.weight.dtype == torch.bfloat16 and x.device.type == "cpu"
