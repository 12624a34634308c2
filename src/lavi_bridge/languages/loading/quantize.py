"""Language models held in 8 or 4 bits by bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from lavi_bridge.config import Quantize
from lavi_bridge.errors import BridgeError


def quantized(how: Quantize, dtype: torch.dtype, device: torch.device | None) -> dict[str, Any]:
    """Arguments of `from_pretrained` that hold linear layers in 4 or 8 bits (bitsandbytes).

    NF4: 4-bit NormalFloat with quantised scales (QLoRA, arXiv 2305.14314). int8: LLM.int8(), in
    which outliers stay as they are (arXiv 2208.07339).

    Raises:
        BridgeError: bitsandbytes is not installed.
    """
    if how == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BridgeError(
            f"'quantize' {how} needs bitsandbytes: pip install 'lavi-bridge[quantize]'"
        )
    from transformers import BitsAndBytesConfig

    if how == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return {"quantization_config": config, "device_map": {"": device or torch.device("cpu")}}


def keep_trainable(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a CPU: what it repacks has no gradient."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
