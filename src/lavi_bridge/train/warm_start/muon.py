"""Muon, an optimizer whose steps are orthogonal matrices (Jordan et al. 2024), at AdamW's rates.

All singular values of a step are equal, so what few captions of a batch show is learned as fast as
what all of them do. PyTorch's own class takes matrices alone, one after the other, and rounds them
to bfloat16, in which most CPUs compute thirty times as slowly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lavi_bridge.running.blocks import like, whole

MOMENTUM = 0.95
"""Jordan et al.'s, like the number of iterations below."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that drives all singular values towards 1 (Jordan et al.)."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of AdamW's steps over their rate (arXiv 2502.16982, section 2.2)."""
BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's own (arXiv 1412.6980), for what is no matrix."""


class Muon(torch.optim.Optimizer):
    """Muon for matrices, Adam for all other parameters; without weight decay.

    An orthogonal step is scaled to entries of the size of AdamW's, so that one rate serves both
    kinds of parameters (arXiv 2502.16982, equation 4).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make a step along the gradients that are there."""
        for group in self.param_groups:
            alike = defaultdict[torch.Size, list[nn.Parameter]](list)
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.ndim == 2:
                    alike[parameter.shape].append(parameter)
                elif parameter.grad is not None:
                    self._adam_step(parameter, parameter.grad, group["lr"])
            for matrices in alike.values():
                self._orthogonal_step(matrices, group["lr"])

    def _orthogonal_step(self, matrices: list[nn.Parameter], rate: float) -> None:
        """Make one step of all matrices of one shape."""
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
        gradient = torch.stack([whole(m.grad) for m in matrices if m.grad is not None])
        momentum = torch.stack([whole(self.state[matrix]["momentum"]) for matrix in matrices])
        momentum.lerp_(gradient, 1 - MOMENTUM)
        step = orthogonal(gradient.lerp(momentum, MOMENTUM))  # looks ahead, as Nesterov's
        step *= -rate * RMS * max(matrices[0].shape) ** 0.5
        for matrix, kept, change in zip(matrices, momentum, step, strict=True):
            self.state[matrix]["momentum"].copy_(like(matrix, kept))
            matrix.add_(like(matrix, change))

    def _adam_step(self, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        first, second = (1 - beta ** state["step"] for beta in BETAS)
        state["exp_avg"].lerp_(gradient, 1 - BETAS[0])
        state["exp_avg_sq"].lerp_(gradient.square(), 1 - BETAS[1])
        scale = (state["exp_avg_sq"] / second).sqrt_().add_(EPSILON)
        parameter.addcdiv_(state["exp_avg"], scale, value=-rate / first)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (count, rows, columns) with singular values near 1 (0.7 to 1.2) in place of theirs.

    By Newton–Schulz iterations in float32, which need products alone.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
