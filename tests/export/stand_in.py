"""Small stand-ins for what ComfyUI hands to nodes, by the rules that were read in its v0.3.64.

Its own code is run by `test_comfyui.py` where COMFYUI names a checkout.
"""

from __future__ import annotations

from copy import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class Part:
    """An input or an output: its type, its name, and what else is said of it."""

    def __init__(self, kind: str, id: str = "", **options: Any) -> None:
        self.kind, self.id, self.options = kind, id, options


def kind(name: str) -> Any:
    """A type of ComfyUI, with its inputs and outputs."""

    class Type:
        @staticmethod
        def Input(id: str, **options: Any) -> Part:
            return Part(name, id, **options)

        @staticmethod
        def Output(**options: Any) -> Part:
            return Part(name, **options)

    return Type


class ComfyNode:
    """The base of all nodes."""


def node_output(*values: Any) -> SimpleNamespace:
    return SimpleNamespace(result=values)


NAMES = ("Combo", "String", "Int", "Float", "Model", "Conditioning")
io = SimpleNamespace(
    ComfyNode=ComfyNode,
    Schema=SimpleNamespace,
    Custom=kind,
    NodeOutput=node_output,
    **{name: kind(name.upper()) for name in NAMES},
)
"""Of `comfy_api.latest.io` what the nodes ask for."""


class Model:
    """An image model as ComfyUI's MODEL: named weights, and patches that are to be added to them.

    Args:
        weights: by diffusers' names.
        told: of its `unet_config`.
        width: of PixArt's text, where that is what it is.
    """

    def __init__(self, weights: dict[str, Tensor], told: dict[str, Any], width: int = 0) -> None:
        first = SimpleNamespace(weight=torch.empty(1, width))
        self.model = SimpleNamespace(
            model_config=SimpleNamespace(unet_config=told),
            diffusion_model=SimpleNamespace(
                y_embedder=SimpleNamespace(y_proj=SimpleNamespace(fc1=first))
            ),
            weights=weights,
        )
        self.patches: dict[str, tuple[float, Patch]] = {}

    def clone(self) -> Model:
        other = copy(self)
        other.patches = dict(self.patches)
        return other

    def add_patches(self, patches: dict[str, Patch], strength: float) -> list[str]:
        known = [name for name in patches if name in self.model.weights]
        self.patches |= {name: (strength, patches[name]) for name in known}
        return known

    def patched(self, name: str) -> Tensor:
        """A weight with what is added to it."""
        strength, (down, up, alpha) = self.patches[name]
        added = (up.flatten(1) @ down.flatten(1)) * (alpha / len(down))
        base = self.model.weights[name]
        return base + strength * added.view_as(base)


Patch = tuple[Tensor, Tensor, float]


def model_lora_keys_unet(model: Any, keys: dict[str, str]) -> dict[str, str]:
    """Names in a file -> names of weights: U-Nets by underscores, PixArt by its path."""
    pixart = "image_model" in model.model_config.unet_config
    for name in model.weights:
        path = name.removesuffix(".weight")
        if path != name:
            keys[f"transformer.{path}" if pixart else f"lora_unet_{path.replace('.', '_')}"] = name
    return keys


def load_lora(state: dict[str, Tensor], keys: dict[str, str]) -> dict[str, Patch]:
    """The patches whose names are known; others are passed over, as there."""
    patches = {}
    for prefix, name in keys.items():
        for first, second in (("lora_down", "lora_up"), ("lora_A", "lora_B")):
            if (up := state.get(f"{prefix}.{second}.weight")) is not None:
                down = state[f"{prefix}.{first}.weight"]
                patches[name] = (
                    down,
                    up,
                    float(state.get(f"{prefix}.alpha", torch.tensor(len(down)))),
                )
    return patches


lora = SimpleNamespace(model_lora_keys_unet=model_lora_keys_unet, load_lora=load_lora)
"""Of `comfy.lora` what the nodes ask for."""
