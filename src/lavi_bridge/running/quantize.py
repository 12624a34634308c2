"""Frozen weights held in 8 or 4 bits by bitsandbytes: which, how, and how many bytes they take.

NF4: 4-bit NormalFloat with quantised scales (QLoRA, arXiv 2305.14314). int8: LLM.int8(), in which
outliers stay as they are (arXiv 2208.07339).
"""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import torch
from torch import nn

from lavi_bridge.config import Quantize
from lavi_bridge.errors import BridgeError
from lavi_bridge.running.blocks import blocks

OUTLIERS = 6.0
"""Inputs beyond this are multiplied unquantised in int8 (arXiv 2208.07339, section 3.2)."""


def check_installed(how: Quantize, setting: str) -> None:
    """Refuse to quantise without the package that does it.

    Raises:
        BridgeError: bitsandbytes is not installed.
    """
    if how != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise BridgeError(
            f"'{setting}' {how} needs bitsandbytes: pip install 'lavi-bridge[quantize]'"
        )


def quantizable(model: nn.Module, targets: str) -> dict[str, nn.Linear]:
    """The linear layers that are held in fewer bits, by name: those of every repeated block that
    has a layer with a name like `targets`, which is where LoRA goes.

    What stays as it is: embeddings, the final projection, convolutions, norms, and what the class
    itself keeps in float32.
    """
    names = {module: name for name, module in model.named_modules()}
    every = linears(model)
    found: dict[str, nn.Linear] = {}
    for block in blocks(model):
        inside = [f"{names[block]}.{name}" for name, _ in block.named_modules() if name]
        if any(re.fullmatch(targets, name) for name in inside):
            found |= {name: every[name] for name in inside if name in every}
    return found


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """All linear layers by name, but those of LoRA and those that the class keeps in float32; of a
    language model these are held in fewer bits."""
    kept = getattr(model, "_keep_in_fp32_modules", None) or ()
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and ".lora_" not in name
        and not any(part in name.split(".") for part in kept)
    }


def quantize_blocks(
    model: Any, targets: str, how: Quantize, *, dtype: torch.dtype, device: torch.device
) -> int:
    """Replace the layers of `quantizable` one by one, made on `device`; return how many there are.

    Their products are in `dtype`. The whole model is never on `device`, and nothing of it is saved:
    bridges hold what was trained.

    Raises:
        BridgeError: bitsandbytes is not installed.
    """
    check_installed(how, "quantize_vision")
    found = quantizable(model, targets)
    for name, layer in found.items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, _quantized(layer, how, dtype).to(device))
        layer.weight = None  # type: ignore[assignment]  # whoever still holds the layer, not its weight
    # by these PEFT knows which of its layers to take
    model.is_loaded_in_8bit, model.is_loaded_in_4bit = how == "int8", how == "nf4"
    keep_trainable(model)
    return len(found)


def _quantized(layer: nn.Linear, how: Quantize, dtype: torch.dtype) -> nn.Module:
    """A layer that quantises its weight when it is moved to a device."""
    import bitsandbytes as bnb

    sides = layer.in_features, layer.out_features, layer.bias is not None
    made: Any
    if how == "int8":
        made = bnb.nn.Linear8bitLt(
            *sides, has_fp16_weights=False, threshold=OUTLIERS, device="meta"
        )
        made.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False)
    else:
        made = bnb.nn.Linear4bit(*sides, compute_dtype=dtype, quant_type="nf4", device="meta")
        made.weight = bnb.nn.Params4bit(
            layer.weight.data, requires_grad=False, quant_type="nf4", module=made
        )
    made.bias = layer.bias
    return made.train(layer.training)


def quantized_bytes(layer: nn.Linear, how: Quantize, itemsize: int) -> float:
    """Bytes of a layer's weight with its tables of scales; not quantised, `itemsize` a number."""
    numbers = layer.in_features * layer.out_features
    if how == "int8":  # a scale in float32 for each row
        return numbers + 4 * layer.out_features
    # a scale in 8 bits for 64 numbers, one in float32 for 256 of those
    return numbers * (0.5 + 1 / 64 + 4 / (64 * 256)) if how == "nf4" else numbers * itemsize


def keep_trainable(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a CPU: what it repacks has no gradient."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
