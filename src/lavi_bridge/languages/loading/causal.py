"""Causal language models with their output layer, for writing text: a bridge needs the rest."""

from __future__ import annotations

from typing import Any

import torch

from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import load_pretrained
from lavi_bridge.languages.loading.tokenizer import (
    choose_pad_token,
    load_tokenizer,
)


def load_causal(
    place: Place, *, dtype: torch.dtype, trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """Load a causal language model, in evaluation mode, and its tokenizer.

    Raises:
        BridgeError: it cannot be loaded, is of another kind, or lacks weights (as the bundled
            language models do, which have no output layer).
    """
    from transformers import AutoModelForCausalLM

    model = load_pretrained(
        AutoModelForCausalLM,
        place,
        f"'{place.id}' as a causal language model",
        lacks=f"'{place.id}' cannot write text: it lacks",
        trust_remote_code=trust_remote_code,
        dtype=dtype,
    )
    tokenizer = load_tokenizer(place, trust_remote_code=trust_remote_code)
    embeddings = getattr(model.config.get_text_config(), "vocab_size", None)
    choose_pad_token(tokenizer, ("eos", "unk", "bos"), embeddings, place)  # any: it is masked
    return model.eval(), tokenizer
