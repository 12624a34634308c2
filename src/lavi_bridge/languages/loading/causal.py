"""Causal language models with their output layer, for writing text: a bridge needs the rest."""

from __future__ import annotations

from typing import Any

import torch

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.weights import of_any_variant
from lavi_bridge.languages.loading.tokenizer import (
    cannot_load,
    choose_pad_token,
    load_tokenizer,
    quiet,
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

    try:
        with quiet():
            model, report = of_any_variant(
                AutoModelForCausalLM.from_pretrained,
                **place.pretrained(),
                dtype=dtype,
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
            )
    except Exception as error:  # the libraries raise many types; all mean this
        raise cannot_load(
            f"'{place.id}' as a causal language model", error, trusted=trust_remote_code
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise BridgeError(
            f"'{place.id}' cannot write text: it lacks {len(missing)} of the model's weights, "
            f"such as '{missing[0]}'"
        )
    tokenizer = load_tokenizer(place, trust_remote_code=trust_remote_code)
    embeddings = getattr(model.config.get_text_config(), "vocab_size", None)
    choose_pad_token(tokenizer, ("eos", "unk", "bos"), embeddings, place)  # any: it is masked
    return model.eval(), tokenizer
