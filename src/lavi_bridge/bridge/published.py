"""Reads the published checkpoints (Hub repository shihaozhao/LaVi-Bridge).

`lora_vis.pt` and `lora_text.pt` are unnamed lists of tensors [up, down, up, down, …] in the order
of `named_modules()` of the layers that the published code injects; rank and targets are stored
nowhere. `adapter/` is a diffusers folder. Our families' LoRA patterns hit exactly those layers in
that order, so assigning one after the other reproduces the published forward pass.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lavi_bridge.adapters import Adapter
from lavi_bridge.bridge import lora
from lavi_bridge.bridge.parts import Parts, Side, inject
from lavi_bridge.config import LoRA
from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.files.locate import locate
from lavi_bridge.languages import load_language
from lavi_bridge.visions import load_vision

DROPOUT = 0.1
"""Dropout in the published adapter and LoRA layers."""


def read(
    folder: str | Path,
    *,
    language: str | Path,
    vision: str | Path,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
) -> Parts:
    """Read a published checkpoint and its base models.

    Raises:
        BridgeError: a file is missing or damaged, or layers, rank or shapes do not fit.
    """
    place = locate(folder)
    files = {}
    for name in ("lora_text.pt", "lora_vis.pt"):
        files[name] = place.file(name)
        if files[name] is None:
            raise BridgeError(f"'{place.id}' has no {name}: is it a published checkpoint?")
    parts = Parts(
        load_language(locate(language), dtype=dtype, trust_remote_code=trust_remote_code),
        load_vision(locate(vision), dtype=dtype),
        Adapter.load(place / "adapter", dropout=DROPOUT),
    )
    for side, path in zip(parts.sides.values(), files.values(), strict=True):
        assert path is not None
        _fill(side, read_list(path), path)
    return parts


def read_list(path: Path) -> list[Tensor]:
    """Read an unnamed list of tensors; nothing else in the file is executed.

    Raises:
        BridgeError: the file is damaged or holds something else.
    """
    import pickle

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise BridgeError(f"{path} is damaged or no list of tensors ({reason})") from error
    if not isinstance(found, list) or not found or not all(torch.is_tensor(t) for t in found):
        raise BridgeError(f"{path} is not a published LoRA file (an unnamed list of tensors)")
    return found


def _fill(side: Side, tensors: list[Tensor], path: Path) -> None:
    """Inject LoRA of the rank that the file has, and put its tensors in."""
    if any(tensor.ndim < 2 for tensor in tensors):
        raise BridgeError(f"{path} is not a published LoRA file (matrices up, down, up, down, …)")
    rank = tensors[0].shape[1]
    if len(tensors) % 2:
        raise BridgeError(f"{path} has {len(tensors)} tensors; up and down make an even number")
    inject(side, LoRA(rank, side.lora_targets, DROPOUT))
    layers = lora.layers(side.trunk)
    if 2 * len(layers) != len(tensors):
        raise BridgeError(
            f"{path} has {len(tensors) // 2} layers, but '{side.place.id}' has {len(layers)} "
            "to fill: it was trained on another model"
        )
    for (name, layer), up, down in zip(layers.items(), tensors[::2], tensors[1::2], strict=True):
        for part, tensor in ((layer.lora_B, up), (layer.lora_A, down)):
            weight = part[lora.NAME].weight
            if _as_linear(weight).shape != _as_linear(tensor).shape:
                raise BridgeError(
                    f"{path}: layer {name} holds {tuple(tensor.shape)}, but the model at rank "
                    f"{rank} needs {tuple(weight.shape)}: another rank, width or model"
                )
            weight.data.copy_(tensor.reshape(weight.shape))


def _as_linear(weight: Tensor) -> Tensor:
    """A 1×1 convolution counts as the matrix it is."""
    return weight.flatten(1) if weight.shape[2:].numel() == 1 else weight
