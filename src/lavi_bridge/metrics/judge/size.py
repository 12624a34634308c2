"""How large a judge is, from its config alone: said before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lavi_bridge.config import Quantize
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import loading, quiet
from lavi_bridge.running.machine import GB, memory
from lavi_bridge.running.quantize import linears, quantized_bytes

SUCH = "Qwen/Qwen3-VL-2B-Instruct"
FEWER: tuple[Quantize, ...] = ("int8", "nf4")


@dataclass(frozen=True)
class Size:
    """What a judge consists of."""

    numbers: int
    """Weights in all; embeddings that two layers share count once."""
    language: int
    """Of them, what a token goes through: the language model's layers, of experts those chosen."""
    saying: int
    """Of them, in the last projection, onto all tokens."""
    seeing: int
    """Of them, what the picture goes through."""
    linear: int
    """Of them, in layers that can be held in fewer bits."""
    held: Mapping[Quantize, float]
    """Bytes of these layers in 8 and 4 bits."""
    cached: int
    """Numbers that are kept of each token: its keys and values in all layers."""

    def gb(self, dtype: torch.dtype, quantize: Quantize = "none") -> float:
        """GB (1e9 bytes) of the weights."""
        if quantize == "none":
            return self.numbers * dtype.itemsize / GB
        return ((self.numbers - self.linear) * dtype.itemsize + self.held[quantize]) / GB

    def cache(self, dtype: torch.dtype, tokens: float) -> float:
        """GB of the keys and values of so many tokens."""
        return self.cached * tokens * dtype.itemsize / GB

    def check(
        self, name: str, dtype: torch.dtype, quantize: Quantize, device: torch.device, tokens: int
    ) -> None:
        """Refuse a judge whose weights do not fit, with what it keeps of so many tokens.

        Raises:
            BridgeError: they do not; the line says what is needed and what there is.
        """
        kept = self.cache(dtype, tokens)
        needed = self.gb(dtype, quantize) + kept
        if device.type == "cuda":
            there, what = torch.cuda.get_device_properties(device).total_memory / GB, "the GPU has"
        else:
            there, what = memory()["available"], "there are"
        if needed <= there:
            return
        smaller = {how: self.gb(dtype, how) + kept for how in FEWER}
        fits = next((how for how, gb in smaller.items() if gb <= there and gb < needed), None)
        advice = "take a smaller judge"
        if fits is not None:
            advice = f"with --judge-quantize {fits} it takes {smaller[fits]:.1f} GB"
        raise BridgeError(
            f"the judge '{name}' needs {needed:.1f} GB, {kept:.1f} of them for keys and values of "
            f"{tokens:,} tokens, and {what} {there:.1f} GB: {advice}"
        )


def size_of(place: Place, *, trust_remote_code: bool = False) -> Size:
    """Count an image-and-text model by its config; no weight is read.

    Raises:
        BridgeError: it is another kind of model, or there is none.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN,
    )

    kind = place.json("config.json").get("model_type")
    if kind not in KNOWN and not trust_remote_code:
        raise BridgeError(
            f"'{place.id}' is a '{kind}', no image-and-text model; a judge is one, such as {SUCH}"
        )
    with loading(f"the judge '{place.id}'", trust_remote_code=trust_remote_code), quiet():
        trust = {"trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(**place.pretrained(), **trust)
        if config.is_encoder_decoder:
            raise BridgeError(f"a '{kind}' encodes its question apart; take one such as {SUCH}")
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config, **trust)
    language, read, output = (
        model.get_decoder(),
        model.get_input_embeddings(),
        model.get_output_embeddings(),
    )
    layers = [layer for layer in linears(model).values() if layer is not output]
    numbers, told = _numbers(model), _numbers(language)
    shared = output.weight is read.weight
    return Size(
        numbers=numbers,
        language=told - _numbers(read) - _idle(language, config.get_text_config()),
        saying=_numbers(output),
        seeing=numbers - told - (0 if shared else _numbers(output)),
        linear=sum(layer.weight.numel() for layer in layers),
        cached=_cached(config.get_text_config()),
        held={how: sum(quantized_bytes(layer, how, 0) for layer in layers) for how in FEWER},
    )


def _cached(config: Any) -> int:
    """Numbers of a token's keys and values; layers with a state in their place have none."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return (
        2
        * sum(kind.endswith("attention") and kind != "linear_attention" for kind in kinds)
        * (heads * width)
    )


def _idle(model: nn.Module, config: Any) -> int:
    """Weights of the experts that a token does not go through, where a layer has several."""
    named = ("num_experts", "num_local_experts", "n_routed_experts")
    count = next(filter(None, (getattr(config, name, None) for name in named)), None)
    chosen = getattr(config, "num_experts_per_tok", None)
    if not count or not chosen:
        return 0
    parts = [p.numel() for name, p in model.named_parameters() if "experts" in name.split(".")]
    return sum(parts) * (count - chosen) // count


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
