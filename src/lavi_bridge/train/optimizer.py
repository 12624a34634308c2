"""Optimizers by name, how their rates change in the course of a run, and what they let be."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from diffusers.optimization import get_scheduler

from lavi_bridge.adapters import Adapter
from lavi_bridge.errors import BridgeError
from lavi_bridge.train.options import TrainConfig


def make_optimizer(
    config: TrainConfig, groups: list[dict[str, Any]], device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer by name, with the paper's β and ε.

    Raises:
        BridgeError: its package is not installed.
    """
    options: dict[str, Any] = {
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": config.weight_decay,
    }
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=device.type == "cuda", **options)
    package = {"adamw-8bit": "bitsandbytes", "schedule-free": "schedulefree"}[config.optimizer]
    if importlib.util.find_spec(package) is None:
        extra = "quantize" if package == "bitsandbytes" else "schedule-free"
        raise BridgeError(
            f"optimizer '{config.optimizer}' is not installed: pip install 'lavi-bridge[{extra}]'"
        )
    if package == "bitsandbytes":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, **options)
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, **options)


def schedule(config: TrainConfig, warmup: int) -> Callable[[int], float]:
    """The rate of a step over the given one, as a function of the steps before it.

    Args:
        warmup: steps over which it rises from zero.
    """
    name: str = config.schedule
    if name == "constant" and config.warmup:
        name = "constant_with_warmup"
    unused = torch.optim.SGD([torch.zeros(1)])  # diffusers makes schedules of an optimizer only
    rate: Callable[[int], float] = get_scheduler(
        name, unused, num_warmup_steps=warmup, num_training_steps=config.steps
    ).lr_lambdas[0]
    return rate


def freeze_mix(adapter: Adapter, after: int | None, *, step: int) -> None:
    """Drop the gradient of the weights that mix layers, from step `after` on (arXiv 2512.15560).

    Without one no optimizer moves them, neither by its moments nor by weight decay, and they count
    in no norm; as they still have one in the backward pass, wrappers for several processes find it.
    """
    if after is not None and step >= after:
        adapter.mix.logits.grad = None
