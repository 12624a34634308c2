"""Causal language models with their output layer, for writing text: a bridge needs the rest."""

from __future__ import annotations

from typing import Any

import torch

from lavi_bridge.errors import BridgeError, in_a_line
from lavi_bridge.languages.base import _quiet, load_tokenizer
from lavi_bridge.locate import Place


def load_causal(place: Place, *, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load a causal language model, in evaluation mode, and its tokenizer.

    Raises:
        BridgeError: it cannot be loaded, is of another kind, or lacks weights (as the bundled
            language models do, which have no output layer).
    """
    from transformers import AutoModelForCausalLM

    try:
        with _quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                **place.pretrained(), dtype=dtype, output_loading_info=True
            )
    except Exception as error:  # the libraries raise many types; all mean this
        raise BridgeError(
            f"cannot load '{place.id}' as a causal language model: {in_a_line(error)}"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise BridgeError(
            f"'{place.id}' cannot write text: it lacks {len(missing)} of the model's weights, "
            f"such as '{missing[0]}'"
        )
    tokenizer = load_tokenizer(place)
    if tokenizer.pad_token is None:  # any will do: padding is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    return model.eval(), tokenizer
