"""Language models held in 8 or 4 bits by bitsandbytes, as transformers does it while it loads."""

from __future__ import annotations

from typing import Any

import torch

from lavi_bridge.config import Quantize
from lavi_bridge.running.quantize import check_installed


def quantized(how: Quantize, dtype: torch.dtype, device: torch.device | None) -> dict[str, Any]:
    """Arguments of `from_pretrained` that hold linear layers in 4 or 8 bits (bitsandbytes).

    Raises:
        BridgeError: bitsandbytes is not installed.
    """
    if how == "none":
        return {}
    check_installed(how, "quantize")
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
