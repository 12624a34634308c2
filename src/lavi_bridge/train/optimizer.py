"""Optimizers by name."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from lavi_bridge.config import TrainConfig
from lavi_bridge.errors import BridgeError


def make_optimizer(config: TrainConfig, groups: list[dict[str, Any]],
                   device: torch.device) -> torch.optim.Optimizer:  # fmt: skip
    """The optimizer by name, with the paper's β and ε.

    Raises:
        BridgeError: its package is not installed.
    """
    options: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8,
                               "weight_decay": config.weight_decay}  # fmt: skip
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
