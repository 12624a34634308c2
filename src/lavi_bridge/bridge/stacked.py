"""Other people's LoRA in the image model, beside the bridge's own: each a PEFT adapter of its own.

So it holds whatever the precision of the base weights, nothing of it trains or is saved with the
bridge, and taken away it leaves not a bit behind.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lavi_bridge.bridge import lora
from lavi_bridge.bridge.foreign import Factors, LoRAFile
from lavi_bridge.config import check_finite
from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.files.atomic import at_home
from lavi_bridge.visions import Vision


@dataclass(frozen=True)
class Stacked:
    """One LoRA file in an image model."""

    file: str
    """Its name, or that of its folder; nothing of this machine."""
    digest: str
    """12 hex digits of its content."""
    scale: float
    layers: int
    """How many it changes."""
    keys: int
    """How many tensors of the file that took; all that are of an image model."""
    left_out: int
    """How many are of text encoders, which a bridge does without."""

    @property
    def record(self) -> dict[str, Any]:
        """What a picture says of it."""
        return {"file": self.file, "digest": self.digest, "scale": self.scale}


def parse(text: str) -> tuple[str, float]:
    """`FILE:0.8` -> file and scale; without one it is 1.

    Raises:
        BridgeError: the scale is not finite.
    """
    place, given, number = text.rpartition(":")
    if not given or at_home(text).exists():
        return text, 1.0
    try:
        scale = float(number)
    except ValueError:  # it was part of the name
        return text, 1.0
    check_finite("lora", scale)
    return place, scale


def load(vision: Vision, source: str | Path, scale: float, number: int) -> Stacked:
    """Put a LoRA file into an image model, after `number` others; all of it or nothing.

    Raises:
        BridgeError: the file is missing, damaged or no plain LoRA; something of it is of no layer
            of this model, or of another shape; or the scale is not finite.
    """
    check_finite("scale", scale)
    file = LoRAFile.read(source)
    factors = file.factors(vision)
    name = _name(number)
    try:
        _inject(vision.backbone, factors, name)
        found = lora.wrapped(vision.backbone)
        for layer, given in factors.items():
            what = f"'{file.name}': layer '{layer}' of '{vision.place.id}'"
            _fill(found[layer], given, name, scale, what)
        if file.left_out:
            warnings.warn(
                f"{file.left_out} keys of '{file.name}' are of a text encoder and have no place "
                f"here; the {len(file.tensors)} of the image model all have",
                stacklevel=3,
            )
    except BaseException as error:  # an interruption, too: what is half there would be drawn with
        remove(vision.backbone, [number])
        if isinstance(error, ValueError):
            raise BridgeError(f"'{file.name}' does not fit (peft: {first_line(error)})") from error
        raise
    return Stacked(
        file.name, file.digest, float(scale), len(factors), len(file.tensors), file.left_out
    )


def remove(model: Any, numbers: Iterable[int]) -> None:
    """Take LoRAs away; layers that have no other are what they were before."""
    for name in map(_name, numbers):
        for path, layer in lora.wrapped(model).items():
            if name not in layer.lora_A:
                continue
            lora.forget(layer, name)
            lora.activate(layer, [n for n in layer.active_adapters if n != name])
            if len(layer.lora_A) == 1:
                parent, _, own = path.rpartition(".")
                setattr(model.get_submodule(parent), own, layer.get_base_layer())
            else:
                layer.delete_adapter(name)
        configs = getattr(model, "peft_config", {})
        configs.pop(name, None)
        if not configs and hasattr(model, "peft_config"):
            del model.peft_config


def _inject(model: nn.Module, factors: dict[str, Factors], name: str) -> None:
    """Make room for factors, without values."""
    ranks: dict[int, list[str]] = {}
    for layer, given in factors.items():
        ranks.setdefault(len(given.down), []).append(layer)
    config = LoraConfig(
        r=next(iter(ranks)),
        target_modules=_any_of(factors),
        rank_pattern={f"^{_any_of(layers)}": rank for rank, layers in ranks.items()},
        init_lora_weights=False,
        inference_mode=True,
    )
    active = {path: list(layer.active_adapters) for path, layer in lora.wrapped(model).items()}
    trained = [(p, p.requires_grad) for p in model.parameters()]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # as is meant
            warnings.filterwarnings("ignore", ".*Merging is not supported")  # nor done
            inject_adapter_in_model(config, model, name, low_cpu_mem_usage=True)
    finally:  # PEFT has the new one alone in its place, and freezes the others
        for path, layer in lora.wrapped(model).items():
            new = [name] if name in layer.lora_A else []
            lora.activate(layer, active.get(path, []) + new)
        for parameter, trains in trained:
            parameter.requires_grad_(trains)
    model.train(model.training)  # new layers start in training mode, whatever the model's


def _name(number: int) -> str:
    """PEFT's name for one of them."""
    return f"stacked_{number}"


def _any_of(layers: Iterable[str]) -> str:
    """A pattern of these names alone."""
    return f"(?:{'|'.join(map(re.escape, layers))})"


def _fill(layer: LoraLayer, given: Factors, name: str, scale: float, what: str) -> None:
    base = layer.get_base_layer()
    for part, tensor in ((layer.lora_A, given.down), (layer.lora_B, given.up)):
        room = part[name].weight
        if _as_matrix(tensor).shape != _as_matrix(room).shape:
            raise BridgeError(
                f"{what} takes {tuple(room.shape)}, the file has {tuple(tensor.shape)}: is it of "
                "another image model?"
            )
        weight = tensor.reshape(room.shape).to(base.weight.device, torch.float32)
        part[name].weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    layer.scaling[name] = scale


def _as_matrix(weight: Tensor) -> Tensor:
    """A convolution of one pixel counts as the matrix it is."""
    return weight.flatten(1) if weight.shape[2:].numel() == 1 else weight
